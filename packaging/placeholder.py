"""Check that the address of the repository is the same placeholder, or none, wherever it stands.

python packaging/placeholder.py [--publish]

Addresses are written with the placeholder until the repository has its public home. With --publish
the placeholder is an error: a release that names it would carry dead links. A tag in the variable
GITHUB_REF_NAME must then be that of the version.
"""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACEHOLDER = "github.com/OWNER/fastcurv"
FILES = (
    "pyproject.toml",
    "README.md",
    "docs/install.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "SECURITY.md",
    "CONTRIBUTING.md",
    ".github/ISSUE_TEMPLATE/config.yml",
    "packaging/conda-forge/recipe.yaml",
    "paper/paper.md",
)
WITHOUT_ADDRESS = (".github/CODEOWNERS",)  # files that name the owner alone


def main():
    texts = {name: (ROOT / name).read_text("utf-8") for name in (*FILES, *WITHOUT_ADDRESS)}
    found = {
        name: set(re.findall(r"github\.com/[\w.-]+/fastcurv", text)) for name, text in texts.items()
    }
    missing = [name for name in FILES if not found[name]]
    if missing:
        sys.exit(f"{', '.join(missing)} must name the address of the repository")
    homes = set().union(*found.values())
    if len(homes) > 1:
        sys.exit(f"the address of the repository must be one, got {', '.join(sorted(homes))}")
    if homes == {PLACEHOLDER}:
        said = f"{PLACEHOLDER} is a placeholder: replace it in {', '.join(texts)} to publish"
        if "--publish" in sys.argv[1:]:
            sys.exit(said)
        print(said)
    elif left := [name for name, text in texts.items() if re.search(r"\bOWNER\b", text)]:
        sys.exit(f"{', '.join(left)} must not name OWNER any more. Replace it, or its sentence")
    version = re.search(r'^version = "(.+)"', texts["pyproject.toml"], re.M)[1]
    tag = os.environ.get("GITHUB_REF_NAME", f"v{version}")
    if "--publish" in sys.argv[1:] and tag != f"v{version}":
        sys.exit(f"the tag must be v{version}, that of pyproject.toml, got {tag}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
