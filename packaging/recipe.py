"""Render the conda recipe, and check that it agrees with pyproject.toml.

python packaging/recipe.py

It needs py-rattler-build, which parses and renders recipes as conda-forge's builds do, and no
network.
"""

import sys
import tomllib
from pathlib import Path

import rattler_build

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = """
c_compiler: [gcc]
c_stdlib: [sysroot]
numpy: ["2"]
python: ["3.11.*", "3.12.*", "3.13.*", "3.14.*"]
"""
REQUIRED = ("homepage", "repository", "documentation", "summary", "license", "license_file")


def main():
    text = (ROOT / "packaging/conda-forge/recipe.yaml").read_text("utf-8")
    recipe = rattler_build.Stage0Recipe.from_yaml(text)
    variants = recipe.render(rattler_build.VariantConfig.from_yaml(VARIANTS))
    if len(variants) != 4:
        sys.exit(f"the recipe must render for each of 4 Pythons, got {len(variants)} variants")
    rendered = variants[0].recipe.to_dict()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    expected = {
        "version": project["version"],
        "summary": project["description"],
        "license": project["license"],
        "run requirements": sorted(map(spaced, project["dependencies"])),
        "entry points": [f"{name} = {target}" for name, target in project["scripts"].items()],
    }
    found = {
        "version": rendered["package"]["version"],
        "summary": rendered["about"]["summary"],
        "license": rendered["about"]["license"],
        "run requirements": sorted(set(rendered["requirements"]["run"]) - {"python"}),
        "entry points": rendered["build"]["python"]["entry_points"],
    }
    for name, value in expected.items():
        if found[name] != value:
            sys.exit(
                f"{name} of the recipe must be {value}, that of pyproject.toml, got {found[name]}"
            )
    missing = [name for name in REQUIRED if not rendered["about"].get(name)]
    if missing or not rendered["extra"]["recipe-maintainers"] or not rendered["tests"]:
        sys.exit(f"the recipe must have tests, maintainers and {', '.join(REQUIRED)} under about")
    print("\n".join(map(str, variants)))
    return 0


def spaced(requirement):
    """Return a requirement such as ``numpy>=2`` as conda writes it, ``numpy >=2``."""
    return requirement.replace(">=", " >=", 1)


if __name__ == "__main__":
    sys.exit(main())
