"""Sphinx's settings; the site is built offline by ``make docs``."""

import dataclasses
import importlib
import inspect
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import fastcurv as fc
from fastcurv.applications.cli.parser import COMMANDS
from fastcurv.common.protocols import INTERNAL_NAMES
from fastcurv.optimize.minimize import METHODS

HERE = Path(__file__).resolve().parent
EXAMPLES, FIGURES = HERE.parent / "examples", HERE.parent / "figures"
sys.path.insert(0, str(EXAMPLES))
NOTEBOOKS = importlib.import_module("notebooks")
FIRST_PAGE = (
    "where_training_stops",
    "toy_surface",
    "hidden_way_out",
    "wider_net",
    "newton_parabola",
    "permutations",
)

project = "fastcurv"
copyright = "the fastcurv developers"
version = release = fc.__version__
extensions = ["sphinx.ext.autosummary", "numpydoc", "myst_parser"]
myst_heading_anchors = 2
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_pictures.md", "_commands.md"]
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
# The header shows the four groups, the sidebar the pages of the current one.
html_sidebars = {"index": [], "**": ["sidebar-nav-bs"]}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system says
html_show_sourcelink = False
html_css_files = ["site.css"]
html_static_path = ["_static"]
html_extra_path = ["_build/playground.html", "_build/notebooks"]
suppress_warnings = [
    "myst.header",
    "ref.ref",
]  # inherited docstrings name scikit-learn's own labels


# The public names by task: heading, one sentence, and names below ``fastcurv``.
TASKS = {
    "Networks and objectives": (
        "The network, its loss on data, and user-defined functions.",
        "MLP Objective StreamedObjective Loss Activation",
    ),
    "Spectra": (
        "Eigenvalues and estimates of symmetric operators.",
        "eigsh eigvalsh inertia spectral_density trace diagonal frobenius_norm spectrum.Tracker",
    ),
    "Critical points": (
        "Classify a point, leave a saddle, find points where the gradient vanishes.",
        "classify escape find_critical_point sample_critical_points",
    ),
    "Uncertainty": (
        "Standard deviations of outputs, the evidence, and paths of penalties.",
        "laplace next_rows",
    ),
    "Rows left out": (
        "Predict each row without itself, and find the rows that a prediction depends on.",
        "report leave_one_out",
    ),
    "Training": (
        "Minimise an objective, find out why that fails, and take single steps.",
        "minimize optimize.EarlyStopping optimize.Checkpoint diagnose newton_step "
        "saddle_free_newton_step IndefiniteHessianWarning",
    ),
    "Methods for SciPy": (
        "Values for ``method=`` of ``scipy.optimize.minimize``; ``fc.scipy.newton_cg`` and so on.",
        "applications.scipy.newton_cg applications.scipy.saddle_free_newton "
        "applications.scipy.trust_region",
    ),
    "Estimators": ("In the manner of scikit-learn.", "MLPClassifier MLPRegressor"),
    "Plots": (
        "Each has a method ``plot``.",
        "SpectrumDisplay LandscapeDisplay",
    ),
    "Converters and files": (
        "Networks of other libraries, and files.",
        "from_torch to_torch from_sklearn from_onnx save load save_certificate",
    ),
    "Symmetries": (
        "Other parameters with the same function; ``fc.structure.flip_tanh`` and so on.",
        "structure.symmetry.flip_tanh structure.symmetry.permute_hidden "
        "structure.symmetry.rescale_relu structure.symmetry.nearest_copy",
    ),
    "Installation": ("Versions, kernels and threads.", "show_versions register_threadpoolctl"),
}


# The other pages of the group *Reference*, whose first page is generated.
REFERENCE_PAGES = "glossary stability changelog contributing"


def write_api():
    """Write the page of public names, grouped by task, and check that it has all of them."""
    text = ["API by task", "===========", ""]
    text += ["Everything is called as ``fc.name`` after ``import fastcurv as fc``.", ""]
    shown = set()
    for heading, (sentence, names) in TASKS.items():
        text += [heading, "-" * len(heading), "", sentence]
        text += ["", ".. autosummary::", "   :toctree: generated", "   :nosignatures:", ""]
        text += [f"   fastcurv.{name}" for name in names.split()] + [""]
        shown |= set(names.split())
    missing = set(fc.__all__) - shown
    if missing:
        raise ValueError(f"TASKS must have every public name, lacks {sorted(missing)}.")
    text += ["Methods of minimize", "-------------------", ""]
    for name, method in METHODS.items():
        first = inspect.getdoc(method).split("\n\n")[0]
        text += [f"``{name}``", f"   {' '.join(first.split())}"]
        for entry in dataclasses.fields(method):
            text += ["", f"   - ``{entry.name}={entry.default}``: {entry.metadata['doc']}."]
        text += [""]
    text += ["The form of a method, with a loop of one's own:", ""]
    text += [".. autoclass:: fastcurv.optimize.method.Method", ""]
    text += ["Operators", "---------", ""]
    text += ["The class of ``ob.hessian(theta)``, ``ob.ggn(theta)`` and the like.", ""]
    text += [".. autoclass:: fastcurv.network.operators.Curvature", "   :members:"]
    text += ["   :exclude-members: " + ", ".join(sorted(INTERNAL_NAMES)), ""]
    text += [".. toctree::", "   :hidden:", ""]
    text += [f"   {page}" for page in REFERENCE_PAGES.split()]
    write("api.rst", text)


def write_commands():
    """Write the help of every shell command, for the page of the report."""
    text = []
    for command in COMMANDS:
        shown = subprocess.run(
            [sys.executable, "-m", "fastcurv", command, "--help"],
            env={**os.environ, "COLUMNS": "78"},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        shown = shown.partition("\nexit status:")[0].rstrip()
        text += [f"### fastcurv {command}", "", "```text", shown, "```", ""]
    write("_commands.md", text)


def write_gallery():
    """Write a page of all examples in the order of the lectures' story, with thumbnails of the
    pictures that ``make examples`` left, some of them for the first page too.
    """
    story = runpy.run_path(str(EXAMPLES / "story.py"))
    anchor = story["anchor"]
    captions = FIGURES / "captions.json"
    said = json.loads(captions.read_text()) if captions.exists() else {}
    small, full, corrections = {}, [], []
    for chapter, names in story["STORY"].items():
        full += [f"## {chapter}", "", *notebook_links(chapter)]
        for name in names:
            head, rest = story["claim"](name), story["docstring"](name)[1:]
            rest += [story["members"](name)] if name in story["MEMBERS"] else []
            full += [f"({anchor(name)})=", "", f"### {head}", ""]
            full += [
                line
                for lecture in story["lectures"](name)
                for line in (f"*Lecture: {lecture}*", "")
            ]
            if (FIGURES / f"{name}.png").exists():
                small[name] = picture(name, head, f"gallery.html#{anchor(name)}", head)
                full += [*picture(name, said.get(name, head), None, said.get(name, "")), ""]
            full += ["\n\n".join(rest), "", *source(name)]
            corrections += [
                f"- {paragraph} ([the picture](#{anchor(name)}))"
                for paragraph in story["corrections"](name)
            ]
    text = ["# Gallery", ""]
    text += ["Each picture shows one claim about the loss surfaces of networks, measured on real"]
    text += [
        "networks by the script that is linked below it. `make examples` runs all of them.",
        "",
    ]
    text += [story["FROM_LECTURES"], ""]
    text += [
        'In the <a href="playground.html">playground</a> you train a small network in the browser'
    ]
    text += ["and see all eigenvalues of its Hessian.", ""]
    first = [small[name] for name in story["FIRST_PICTURES"] if name in small]
    text += [*thumbnails(first), "## Claims that are wrong, or half right", ""]
    text += [*corrections, "", *full]
    write("gallery.md", text)
    write("_pictures.md", thumbnails(small[name] for name in FIRST_PAGE if name in small))


def notebook_links(chapter):
    """Return a line with the notebooks of a chapter, if it has exercises."""
    if chapter not in NOTEBOOKS.CHAPTERS:
        return []
    name = NOTEBOOKS.file_name(chapter)
    return [
        f'<a href="{name}.ipynb">{NOTEBOOKS.INVITATION}</a>; the same '
        f'<a href="{name}_answers.ipynb">with answers</a>.',
        "",
    ]


def source(name):
    """Return a line with a link to the code of an example."""
    return [f"Code: {{download}}`examples/{name}.py <../examples/{name}.py>`", ""]


def picture(name, alt, target, caption):
    """Return the lines of a figure, with ``alt`` as its alternative text."""
    alt = " ".join(alt.replace("`", "").split())
    options = [f":alt: {alt}"] + [f":target: {target}"] * bool(target)
    return [f"```{{figure}} ../figures/{name}.png", *options, "", caption, "```"]


def thumbnails(figures):
    """Return small pictures in rows, or nothing if `make examples` has not drawn any."""
    lines = [line for figure in figures for line in [*figure, ""]]
    if not lines:
        return [""]
    return ["````{container} thumbnails", "", *lines, "````", ""]


def linked(text, names):
    """Public names in code lead to their pages on the site, which a repository does not have."""

    def link(found):
        page = found["name"] and f"(generated/fastcurv.{found['name']}.rst)"
        return f"[{found[0]}]{page}" if page else found[0]

    name = rf"(?<![\[`])`fc\.(?P<name>{'|'.join(names)})`(?![\]`])"
    fence = r"^(?P<fence>`{3,}).*?^(?P=fence)$"
    return re.sub(rf"{fence}|{name}", link, text, flags=re.DOTALL | re.MULTILINE)


def linked_to_generated(text):
    """Return a page with its links to sources replaced by links to the pages that are generated
    from these sources, which a repository does not have.
    """
    text = text.replace("](../examples/)", "](gallery.md)")
    text = text.replace("](../fastcurv/__init__.py)", "](api.rst)")
    return re.sub(
        r"\]\(\.\./examples/(\w+)\.py\)", lambda found: f"](#{found[1].replace('_', '-')})", text
    )


def setup(app):
    """Sphinx's hook: pages are read with their links."""

    def read(app, page, source):
        if Path(app.env.doc2path(page)).suffix == ".md":
            source[0] = linked(linked_to_generated(source[0]), fc.__all__)

    app.connect("source-read", read)


def write(name, lines):
    """Leave a file alone that would not change, so that nothing is built anew for it."""
    text, path = "\n".join(lines) + "\n", HERE / name
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


write_api()
write_commands()
write_gallery()
runpy.run_path(str(EXAMPLES / "playground.py"))["write"](HERE / "_build")
NOTEBOOKS.write(HERE / "_build/notebooks")
