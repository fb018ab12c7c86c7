"""Sphinx's settings; the site is built offline by ``make docs``."""

import ast
import json
import re
from pathlib import Path

import fastcurv as fc

HERE = Path(__file__).resolve().parent
EXAMPLES, FIGURES = HERE.parent / "examples", HERE.parent / "figures"
FIRST_PAGE = (
    "toy_surface",
    "hidden_way_out",
    "wider_net",
    "newton_parabola",
    "plateaus",
    "permutations",
)

project = "fastcurv"
copyright = "the fastcurv developers"
version = release = fc.__version__
extensions = ["sphinx.ext.autosummary", "numpydoc", "myst_parser"]
myst_heading_anchors = 2
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_pictures.md"]
numpydoc_show_class_members = False
autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections say what each parameter is
autosummary_ignore_module_all = False
html_theme = "pydata_sphinx_theme"
html_title = "fastcurv documentation"
html_favicon = "_static/favicon.svg"
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 5,
}
html_sidebars = {"**": []}  # a page is one column: the header leads to the others
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system says
html_show_sourcelink = False
html_css_files = ["site.css"]
html_static_path = ["_static"]
html_extra_path = ["../examples/moving.html"]
suppress_warnings = [
    "myst.header",
    "ref.ref",
]  # inherited docstrings name scikit-learn's own labels


AT_HOME = {  # reached by `fc.schedules`, `fc.scipy`, `fc.structure`, `fc.spectrum`
    "optimize.schedules": (
        "constant",
        "constant_then_decay",
        "inverse_time",
        "power",
        "robbins_monro",
    ),
    "optimize.scipy": ("newton_cg", "saddle_free_newton", "trust_region"),
    "structure.symmetry": ("flip_tanh", "permute_hidden", "rescale_relu"),
    "spectrum.shared_run": ("Krylov",),
}


def write_api():
    """Write the page of public names, grouped by subpackage."""
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
    for home, names in AT_HOME.items():
        rooms.setdefault(home.split(".")[0], []).extend(f"{home}.{name}" for name in names)
    for room, names in rooms.items():
        text += [room, "-" * len(room), "", ".. autosummary::", "   :toctree: generated", ""]
        text += [f"   fastcurv.{name}" for name in sorted(names)] + [""]
    text += ["Operators", "---------", "", "What ``ob.hessian(theta)`` and its kin return.", ""]
    text += [".. autoclass:: fastcurv.network.operators.Curvature", "   :members:", ""]
    write("api.rst", text)


def write_gallery():
    """Write a page of all examples in the order of the lectures' story, with thumbnails of the
    pictures that ``make examples`` left, some of them for the first page too.
    """
    told = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse((EXAMPLES / "gallery.py").read_text()).body
        if isinstance(node, ast.Assign)
        and node.targets[0].id in ("STORY", "LECTURES", "CORRECTIONS")
    }
    captions = FIGURES / "captions.json"
    said = json.loads(captions.read_text()) if captions.exists() else {}
    small, full, corrections = {}, [], []
    for chapter, names in told["STORY"].items():
        full += [f"## {chapter}", ""]
        for name in names:
            doc = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text()))
            head, *rest = [" ".join(paragraph.split()) for paragraph in doc.split("\n\n")]
            full += [f"({anchor(name)})=", "", f"### {head}", ""]
            if (FIGURES / f"{name}.png").exists():
                small[name] = picture(name, head, f"gallery.html#{anchor(name)}", head)
                full += [*picture(name, said.get(name, head), None, said.get(name, "")), ""]
            full += ["\n\n".join(rest), "", *source(name)]
            corrections += [
                f"- {paragraph} ([the picture](#{anchor(name)}))"
                for paragraph in rest
                if paragraph.startswith(told["CORRECTIONS"])
            ]
    text = [
        "# Gallery",
        "",
        "Claims about the surface that training moves on, run on real networks",
    ]
    text += ["by `make examples`.", told["LECTURES"], ""]
    text += ['Three pictures <a href="moving.html">move under sliders</a>, offline too.', ""]
    text += [*thumbnails(small.values()), "## Where the lectures are wrong, or half right", ""]
    text += [*corrections, "", *full]
    write("gallery.md", text)
    write("_pictures.md", thumbnails(small[name] for name in FIRST_PAGE if name in small))


def source(name):
    """Return the code of an example, folded."""
    return [
        f"<details><summary>python examples/{name}.py</summary>",
        "",
        f"```{{literalinclude}} ../examples/{name}.py",
        ":language: python",
        "```",
        "",
        "</details>",
        "",
    ]


def anchor(name):
    return name.replace("_", "-")


def picture(name, alt, target, caption):
    """Return the lines of a figure, with ``alt`` as its alternative text."""
    alt = " ".join(alt.replace("`", "").split())
    options = [f":alt: {alt}"] + [f":target: {target}"] * bool(target)
    return [f"```{{figure}} ../figures/{name}.png", *options, "", caption, "```"]


def thumbnails(figures):
    """Return small pictures in rows."""
    lines = [line for figure in figures for line in [*figure, ""]]
    return ["````{container} thumbnails", "", *lines, "````", ""]


def linked(text, names):
    """Public names in code lead to their pages on the site, which a repository does not have."""

    def link(found):
        page = found["name"] and f"(generated/fastcurv.{found['name']}.rst)"
        return f"[{found[0]}]{page}" if page else found[0]

    name = rf"(?<![\[`])`fc\.(?P<name>{'|'.join(names)})`(?![\]`])"
    fence = r"^(?P<fence>`{3,}).*?^(?P=fence)$"
    return re.sub(rf"{fence}|{name}", link, text, flags=re.DOTALL | re.MULTILINE)


def setup(app):
    """Sphinx's hook: pages are read with their links."""

    def read(app, page, source):
        if Path(app.env.doc2path(page)).suffix == ".md":
            source[0] = linked(source[0], fc.__all__)

    app.connect("source-read", read)


def write(name, lines):
    """Leave a file alone that would not change, so that nothing is built anew for it."""
    text, path = "\n".join(lines) + "\n", HERE / name
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


write_api()
write_gallery()
