"""Reports as one self-contained HTML file, from a template of jinja2 and figures of matplotlib.

A figure is drawn by matplotlib as SVG and edited: its styles become attributes, which the content
policy of the page allows, its colours become variables of the style sheet, which has light and dark
values, and its dots become circles with a title each.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import escape_unprintable
from ...common.files import write_atomically
from ...common.optional import optional_import
from ...critical.report import CriticalPoint, evidence_rows

FRAME_HEIGHT_PIXELS = 720  # height of the page in a notebook, in pixels
DOTS = "dots"  # `gid` of the markers that become circles with titles
FOLDER = Path(__file__).parent
_CODE_PATTERN = re.compile("`([^`\n]+)`")
_SVG = "{http://www.w3.org/2000/svg}"
# colours of figures, and the variables of the style sheet that take their place
_COLOR_VARIABLES = {
    "#000000": "ink",
    "#5c6470": "soft",
    "#6e6e6e": "soft",
    "#dcdfe4": "rule",
    "#ffffff": "page",
    "#0072b2": "blue",
    "#e69f00": "orange",
    "#009e73": "green",
    "#d55e00": "red",
}


def check_report_packages() -> None:
    """Raise ImportError, in one sentence, if a package that writes reports is not installed."""
    with optional_import("reports", "report"):
        import jinja2  # noqa: F401
        import matplotlib.figure  # noqa: F401


@dataclass
class Section:
    """A part of a page: pictures, and the words next to them.

    Attributes
    ----------
    heading : str or None
        None for the first screen, which has none.
    numbers : list of (str, str)
        Pairs (name, value), shown in large type.
    leads : list of str
        Sentences in larger type.
    pictures, words, tables : list
        Parts of the page, as markup. Tables are next to the words if there are no pictures.
    """

    heading: str | None = None
    numbers: list[tuple[str, str]] = field(default_factory=list)
    leads: list[str] = field(default_factory=list)
    pictures: list[Any] = field(default_factory=list)
    words: list[Any] = field(default_factory=list)
    tables: list[Any] = field(default_factory=list)

    def __bool__(self) -> bool:
        parts = self.numbers, self.leads, self.pictures, self.words, self.tables
        return self.heading is not None or any(parts)


class Report:
    r"""Report of text, tables, pictures and verdicts, written as one HTML file.

    Methods that add a part add it to the last section and return the report, so that calls can be
    chained. Parts that are added before the first section are the first screen.

    Parameters
    ----------
    title : str
        Title and first heading of the page.

    Examples
    --------
    >>> from fastcurv.applications.cli.report import Report
    >>> page = Report("Two numbers")
    >>> page.add_section("Sizes").add_table(["name", "value"], [["n", 12], ["loss", 0.25]])
    <Report 'Two numbers', 1 section>
    >>> "<td class=\"number\">0.25</td>" in page.to_html()
    True
    """

    def __init__(self, title: str) -> None:
        self.facts: dict[str, Any] = {}
        self.title = escape_unprintable(title)
        self.subtitle = ""
        self.sections = [Section()]
        self._n_figures = 0

    def __repr__(self) -> str:
        n = len(self.sections) - 1
        return f"<Report {self.title!r}, {n} section{'s' * (n != 1)}>"

    def _repr_html_(self) -> str:
        """Return the page in a separate frame, for notebooks."""
        page = html.escape(self.to_html(), quote=True)
        style = f"width:100%;height:{FRAME_HEIGHT_PIXELS}px;border:0"
        title = html.escape(self.title, quote=True)
        return f'<iframe title="{title}" style="{style}" sandbox="" srcdoc="{page}"></iframe>'

    @property
    def first_screen(self) -> Section:
        return self.sections[0]

    def add_section(self, heading: str) -> Report:
        """Begin a new section of this report, and return this report."""
        self.sections.append(Section(heading))
        return self

    def add_text(self, sentence: str) -> Report:
        """Append a paragraph of plain text to this report, and return this report. Text between
        backticks is set as code.
        """
        return self.add_markup(paragraph(sentence))

    def add_table(
        self, header: Sequence[str], rows: Iterable[Iterable[Any]], caption: str = ""
    ) -> Report:
        """Append a table, with a sentence above it, to this report, and return this report. Numbers
        are aligned right, with at most six digits.
        """
        cells = [list(row) for row in rows]
        numeric = [all(_is_number(row[i]) for row in cells) for i in range(len(header))]
        lines = [
            "<tr>" + "".join(_table_cell("td", *cell) for cell in zip(row, numeric)) + "</tr>"
            for row in cells
        ]
        head = "".join(_table_cell("th", name, right) for name, right in zip(header, numeric))
        body = "\n".join(lines)
        above = paragraph(caption) if caption else ""
        self.sections[-1].tables.append(
            _Markup(
                f'{above}<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}'
                "\n</tbody></table></div>"
            )
        )
        return self

    def add_figure(
        self,
        figure: Any,
        caption: str,
        *,
        dots: Sequence[tuple[str, str]] = (),
    ) -> Report:
        """Append a Matplotlib figure, inline as SVG, to this report, and return this report.

        Parameters
        ----------
        figure : Figure or Axes
        caption : str
            The text below the figure.
        dots : sequence of (str, str)
            A title and classes of the style sheet for each marker of the line whose gid is `DOTS`.
        """
        picture = self._svg(figure, caption, dots)
        text = f"<figcaption>{_escape_html(caption)}</figcaption>"
        self.sections[-1].pictures.append(_Markup(f"<figure>{picture}{text}</figure>"))
        return self

    def add_code(self, text: str) -> Report:
        """Append lines of code to this report, and return this report."""
        return self.add_markup(f"<pre>{html.escape(escape_unprintable(text))}</pre>")

    def add_verdict(self, point: CriticalPoint) -> Report:
        """Append a verdict of `fastcurv.classify` to this report: a summary, its reason and a table
        of its evidence. Return this report.
        """
        self.add_verdict_sentence(point)
        return self.add_text(point.reason).add_table(["evidence", "value"], evidence_rows(point))

    def add_verdict_sentence(self, point: CriticalPoint) -> Report:
        """Append a summary of the verdict `point` to this report: its kind, whether the kind is
        proved, and what to do next. Return this report.
        """
        kind = point.kind.replace("_", " ")
        return self.add_markup(
            f'<div class="verdict"><b>{_escape_html(kind)}</b><br>'
            f"{_escape_markup(point.sentence)}</div>"
        )

    def add_markup(self, markup: str) -> Report:
        """Append HTML, in which all text is escaped, to this report. Return this report."""
        self.sections[-1].words.append(_Markup(markup))
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers of a page of `fastcurv.report` by name, as JSON values."""
        return dict(self.facts)

    def to_html(self) -> str:
        """Return the page as one string."""
        style = (FOLDER / "page.css").read_text("utf-8")
        policy = (
            f"default-src 'none'; style-src '{_digest(style)}'; img-src data:; base-uri 'none'; "
            "form-action 'none'"
        )
        return str(_template().render(report=self, style=_Markup(style), policy=policy))

    def write(self, path: str | PathLike[str]) -> Path:
        """Write the page atomically, so that a reader sees either the old file or the whole new
        one.

        Returns
        -------
        pathlib.Path
            The absolute path.
        """
        return write_atomically(path, self.to_html().encode())

    def _svg(self, figure: Any, label: str, dots: Sequence[tuple[str, str]] = ()) -> str:
        self._n_figures += 1
        return svg_markup(figure, label, dots, salt=str(self._n_figures))


def paragraph(sentence: str) -> _Markup:
    """Return a paragraph of plain text, with text between backticks as code, for a section."""
    return _Markup(f"<p>{_escape_markup(sentence)}</p>")


class _Markup(str):
    """Text that the template does not escape."""

    def __html__(self) -> str:
        return str(self)


@lru_cache(maxsize=1)
def _template() -> Any:
    """Return the template of the page."""
    with optional_import("reports", "report"):
        import jinja2

    loader = jinja2.FileSystemLoader(FOLDER)
    options: Any = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, **options)
    environment.filters["marked"] = lambda text: _Markup(_escape_markup(text))
    return environment.get_template("page.html")


def _digest(text: str) -> str:
    """Return the source of a content policy that allows the element with this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def svg_markup(
    figure: Any,
    label: str,
    dots: Sequence[tuple[str, str]] = (),
    *,
    salt: str = "",
) -> str:
    """Return a figure as SVG for a page. `label` is its text for screen readers, and `salt` makes
    the ids of its elements differ from those of other figures. `dots` are as in
    `Report.add_figure`.
    """
    with optional_import("reports", "report"):
        import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        # The argument may be an Axes. Its figure is then rendered.
        figure = getattr(figure, "figure", figure)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    ElementTree.register_namespace("", _SVG[1:-1])
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    tree = ElementTree.fromstring(file.getvalue())
    for parent in tree.iter():
        for child in list(parent):
            if child.tag.endswith("metadata") or child.tag == f"{_SVG}style":
                parent.remove(child)
    for group in tree.iter(f"{_SVG}g"):
        if group.attrib.pop("id", None) == DOTS:  # other ids are those of all figures
            _make_circles(group, dots)
    for element in tree.iter():
        _make_attributes(element)
    for name in ("width", "height", "version"):
        tree.attrib.pop(name, None)
    tree.attrib |= {"role": "img", "aria-label": escape_unprintable(label), "fill": "currentColor"}
    text = ElementTree.tostring(tree, encoding="unicode", short_empty_elements=True)
    return re.sub(r"\n\s*", "\n", text)


def _make_circles(group: Any, dots: Sequence[tuple[str, str]]) -> None:
    """Replace the markers of a group by circles, each with its title and classes."""
    places = [(use.get("x"), use.get("y")) for use in group.iter(f"{_SVG}use")]
    for child in list(group):
        group.remove(child)
    for (x, y), (title, classes) in zip(places, dots, strict=True):
        circle = ElementTree.SubElement(group, f"{_SVG}circle", cx=x, cy=y, r="2.4")
        circle.set("class", f"dot {classes}".rstrip())
        ElementTree.SubElement(circle, f"{_SVG}title").text = escape_unprintable(title)


def _make_attributes(element: Any) -> None:
    """Replace the style of an element by attributes, its colours by variables of the style sheet,
    and round its coordinates.
    """
    for item in filter(None, element.attrib.pop("style", "").split(";")):
        name, _, value = (part.strip() for part in item.partition(":"))
        if name == "font":
            name, value = "font-size", value.partition("px")[0].rpartition(" ")[2]
        if name != "font-family":  # the style sheet of the page has the family
            element.set(name, value)
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    for name in ("fill", "stroke"):
        variable = _COLOR_VARIABLES.get(element.get(name, "").lower())
        if variable is not None:
            element.set(name, f"var(--{variable})")
    for name in ("d", "x", "y", "cx", "cy"):
        if name in element.attrib:
            element.set(name, re.sub(r"-?\d+\.\d+", _round_coordinate, element.get(name)))


def _round_coordinate(found: re.Match[str]) -> str:
    return f"{float(found[0]):.1f}".removesuffix(".0")


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float, np.integer, np.floating)) and not isinstance(x, bool)


def _cell_text(x: Any) -> str:
    if isinstance(x, tuple):
        return " and ".join(map(_cell_text, x))
    return f"{x:.6g}" if _is_number(x) else str(x)


def _table_cell(tag: str, value: Any, right: bool) -> str:
    attributes = ' class="number"' if right else ""
    return f"<{tag}{attributes}>{_escape_markup(_cell_text(value))}</{tag}>"


def _escape_markup(text: Any) -> str:
    """Escape text for the page, with text between backticks as code."""
    return _CODE_PATTERN.sub(r"<code>\1</code>", _escape_html(text))


def _escape_html(text: Any) -> str:
    return html.escape(escape_unprintable(text), quote=False)
