"""Sphinx's settings; the site is built offline by ``make docs``."""

import ast
from pathlib import Path

import fastcurv as fc

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"

project = "fastcurv"
copyright = "the fastcurv developers"
version = release = fc.__version__
extensions = ["sphinx.ext.autosummary", "numpydoc", "myst_parser"]
myst_heading_anchors = 2
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
numpydoc_show_class_members = False
autosummary_generate = True
autosummary_ignore_module_all = False
html_theme = "pydata_sphinx_theme"
html_title = "fastcurv"
html_theme_options = {"show_prev_next": False, "navigation_with_keys": False}
html_show_sourcelink = False
html_css_files = ["site.css"]
html_static_path = ["_static"]
suppress_warnings = [
    "myst.header",
    "ref.ref",
]  # inherited docstrings name scikit-learn's own labels


def write_api():
    """The page of public names, by room."""
    rooms = {}
    for name in fc.__all__:
        thing = getattr(fc, name)
        module = getattr(thing, "__module__", "fastcurv").split(".")
        rooms.setdefault(module[1] if len(module) > 1 else "runtime", []).append(name)
    text = [
        "API",
        "===",
        "",
        "Everything is called as ``fc.name`` after ``import fastcurv as fc``.",
        "",
    ]
    for room, names in rooms.items():
        text += [room, "-" * len(room), "", ".. autosummary::", "   :toctree: generated", ""]
        text += [f"   fastcurv.{name}" for name in sorted(names)] + [""]
    text += ["Operators", "---------", "", "What ``ob.hessian(theta)`` and its kin return.", ""]
    text += [".. autoclass:: fastcurv.network.operators.Curvature", "   :members:", ""]
    write("api.rst", text)


def write_gallery():
    """A page of all examples in lecture order, with the pictures that ``make examples`` left."""
    tree = ast.parse((EXAMPLES / "gallery.py").read_text())
    order = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "ORDER"
    )
    text = [
        "# Gallery",
        "",
        "The lectures' claims, run on real networks: `make examples` draws them.",
        "",
    ]
    for name in order:
        doc = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text()))
        head, _, rest = doc.partition("\n\n")
        text += [f"## {' '.join(head.split())}", "", rest, ""]
        picture = HERE.parent / "figures" / f"{name}.png"
        if picture.exists():
            text += [f"![{name}](../figures/{name}.png)", ""]
        text += [f"`examples/{name}.py`", ""]
    write("gallery.md", text)


def write(name, lines):
    """Leave a file alone that would not change, so that nothing is built anew for it."""
    text, path = "\n".join(lines) + "\n", HERE / name
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


write_api()
write_gallery()
