"""Reports as one self-contained HTML file: inline pictures, light and dark mode, printable."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import escape_unprintable
from ...common.files import write_atomically
from ...common.optional import optional_import
from ...critical.report import CriticalPoint
from ...spectrum.results import to_json_value

# maximum number of characters in a table's line that fit on a screen of 390 pixels
NARROW_SCREEN_CHARACTERS = 44
FRAME_HEIGHT_PIXELS = 720  # height of the page in a notebook, in pixels
_CODE_PATTERN = re.compile("`([^`\n]+)`")
_CHART_SCRIPT_PATH = Path(__file__).with_name("chart.js")
_PAGE_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
{script}</body>
</html>
"""
_STYLE_SHEET = """
:root { --ink: #1d1f23; --soft: #5c6470; --rule: #dcdfe4;
        --page: #fcfcfb; --card: #f3f4f5; --accent: #0072b2;
        --c1: #b87400; --c2: #009e73; --c3: #d55e00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --soft: #9aa3af; --rule: #353a42;
          --page: #15171a; --card: #1e2126; --accent: #56b4e9; --c1: #e69f00; }
}
body { margin: 0; overflow-wrap: break-word; background: var(--page); color: var(--ink);
       font: 17px/1.55 Charter, "Bitstream Charter", Cambria, Georgia, serif; }
main { max-width: 46rem; margin: 0 auto; padding: 3rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .4rem; padding-top: 1.1rem;
     border-top: 1px solid var(--rule); }
p { margin: .7rem 0; }
code, pre, table { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
                   font-size: .82rem; }
pre { background: var(--card); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto;
      line-height: 1.4; }
table { border-collapse: collapse; min-width: min(100%, 22rem); margin: 1rem 0;
        font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th { text-align: left; color: var(--soft); font-weight: 600; }
td + td { overflow-wrap: anywhere; }
th, td { padding: .3rem 1.4rem .3rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
figure { margin: 1.4rem 0; }
figure svg, figure img { display: block; width: 100%; height: auto; }
figure:not(.chart) svg { max-width: 34rem; }
figure img { background: #fff; border-radius: 6px; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(13.5rem, 1fr)); gap: .5rem; }
.row figcaption { grid-column: 1 / -1; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .4rem; }
.verdict { border-left: 4px solid var(--accent); background: var(--card); padding: .7rem 1rem;
           border-radius: 0 6px 6px 0; margin: 1rem 0; }
.verdict b { font-size: 1.1rem; }
.chart svg { touch-action: none; cursor: grab; max-width: 100%; display: block; filter: none; }
.chart text { font: 11px ui-monospace, Menlo, Consolas, monospace; fill: var(--soft); }
.chart .name { fill: var(--ink); }
.chart .grid { stroke: var(--rule); stroke-width: 1; }
.chart .zero { stroke: var(--soft); stroke-width: 1; }
.chart .frame { fill: none; stroke: var(--rule); }
.chart .line { fill: none; stroke-width: 1.6; }
.chart .band { opacity: .22; stroke: none; }
.chart .tick { stroke: var(--ink); stroke-width: 1; }
.chart .tick.below { stroke: var(--c3); stroke-width: 1.5; }
.chart .line.c0, .key.c0 { stroke: var(--accent); color: var(--accent); }
.chart .line.c1, .key.c1 { stroke: var(--c1); color: var(--c1); }
.chart .line.c2, .key.c2 { stroke: var(--c2); color: var(--c2); }
.chart .line.c3, .key.c3 { stroke: var(--c3); color: var(--c3); }
.chart .dot.c0, .chart .band.c0 { fill: var(--accent); }
.chart .dot.c1, .chart .band.c1 { fill: var(--c1); }
.chart .dot.c2, .chart .band.c2 { fill: var(--c2); }
.bar { display: flex; flex-wrap: wrap; gap: .3rem; margin: .3rem 0; }
.bar button { font: .8rem ui-monospace, Menlo, Consolas, monospace; padding: .35rem .55rem;
              border-radius: 5px; border: 1px solid var(--rule); background: var(--card);
              color: var(--ink); min-width: 2.4rem; }
.bar button:hover { border-color: var(--accent); }
.key { font-weight: 700; }
.first { font-size: 1.12rem; }
.calls { display: flex; flex-wrap: wrap; gap: 0 1.6rem; margin: -.55rem 0 .6rem; }
.call { display: flex; align-items: baseline; flex-wrap: wrap; gap: .15rem .5rem; margin: .1rem 0;
        color: var(--soft); font-size: .85rem; }
.call code { overflow-wrap: anywhere; }
.copy { font: .72rem ui-monospace, Menlo, Consolas, monospace; padding: .1rem .4rem;
        border-radius: 4px; border: 1px solid var(--rule); background: none; color: var(--soft);
        cursor: pointer; }
.copy:hover, .copy:focus-visible { border-color: var(--accent); color: var(--ink); }
.scatter svg { cursor: pointer; touch-action: auto; }
.chart .interval { stroke: var(--soft); stroke-width: 1; opacity: .16; }
.chart .interval.few { opacity: .7; stroke-width: 1.5; }
.chart .spot { fill: var(--accent); opacity: .55; }
.chart .spot.out { fill: var(--c3); opacity: .9; }
.chart .spot.up { fill: var(--c1); opacity: 1; }
.chart .spot.down { fill: var(--c2); opacity: 1; }
.chart .ring { fill: none; stroke: var(--ink); stroke-width: 2; }
.chart .diagonal { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 5 4; }
.mark { font-weight: 700; white-space: nowrap; }
.mark.up { color: var(--c1); } .mark.down { color: var(--c2); }
td.range { width: 45%; min-width: 7rem; vertical-align: middle; }
.span { position: relative; height: .9rem; background: var(--card); border-radius: 3px; }
.span i { position: absolute; top: .3rem; height: .3rem; border-radius: 2px;
  background: var(--accent); opacity: .55; }
.span b { position: absolute; top: .05rem; width: 3px; margin-left: -1px; height: .8rem;
  background: var(--accent); }
.span u { position: absolute; top: 0; width: 1px; height: .9rem; background: var(--soft); }
nav ul { list-style: none; padding: 0; } nav li { margin: .3rem 0; } nav a { color: var(--accent); }
@media (max-width: 480px) { main { padding: 1.5rem .9rem 3rem; } h1 { font-size: 1.5rem; }
  body { font-size: 16px; } table { font-size: .76rem; } th, td { padding-right: .8rem; }
  .stacked thead { display: none; } .stacked tr { display: block; padding: .4rem 0;
    border-bottom: 1px solid var(--rule); }
  .stacked td, .stacked td.number { display: grid; grid-template-columns: 8.5rem 1fr; gap: .6rem;
    border: 0; text-align: left; padding: .15rem 0; white-space: normal; }
  .stacked td::before { content: attr(data-label); color: var(--soft); font-weight: 600; }
  .image { overflow-x: auto; } .image img { width: 32rem; max-width: none; } }
@media print { .bar { display: none; } main { max-width: none; }
  h2, figure { break-inside: avoid; } }
"""


class Report:
    r"""Report of text, tables, pictures and verdicts, written as one HTML file.

    Methods that add a part to the report return the report, so that calls can be chained.

    Parameters
    ----------
    title : str
        Title and first heading of the page.

    Attributes
    ----------
    facts : dict
        The numbers of the page by name; empty unless the page comes from `fastcurv.report`.

    Examples
    --------
    >>> from fastcurv.applications.cli.report import Report
    >>> page = Report("Two numbers")
    >>> page.add_section("Sizes").add_table(["name", "value"], [["n", 12], ["loss", 0.25]])
    <Report 'Two numbers', 2 parts>
    >>> "<td class=\"number\">0.25</td>" in page.to_html()
    True
    """

    facts: dict[str, Any]

    def __init__(self, title: str) -> None:
        self.facts = {}
        self.title = str(title)
        self._parts: list[str] = []
        self._charts = False
        self._headings: list[str] = []

    def __repr__(self) -> str:
        return f"<Report {self.title!r}, {len(self._parts)} parts>"

    def _repr_html_(self) -> str:
        """Return the page in a separate frame, for notebooks."""
        page = html.escape(self.to_html(), quote=True)
        style = f"width:100%;height:{FRAME_HEIGHT_PIXELS}px;border:0"
        title = html.escape(self.title, quote=True)
        return f'<iframe title="{title}" style="{style}" srcdoc="{page}"></iframe>'

    def add_section(self, heading: str) -> Report:
        """Append the heading of a new section to this report, and return this report."""
        self._headings.append(_escape_markup(heading))
        return self._add(f'<h2 id="s{len(self._headings)}">{self._headings[-1]}</h2>')

    def add_text(self, sentence: str) -> Report:
        """Append a paragraph of plain text to this report, and return this report. Text between
        backticks is set as code.
        """
        return self._add(f"<p>{_escape_markup(sentence)}</p>")

    def add_table(self, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> Report:
        """Append a table to this report, and return this report. Numbers are aligned right, with at
        most six digits. On narrow screens, the cells of a row of a wide table are placed below each
        other, each with its heading.
        """
        cells = [list(row) for row in rows]
        numeric = [all(_is_number(row[i]) for row in cells) for i in range(len(header))]
        widths = [max(len(_to_json_value(c)) for c in column) for column in zip(header, *cells)]
        stacked = len(header) > 2 and sum(widths) > NARROW_SCREEN_CHARACTERS
        css_class = "wide stacked" if stacked else "wide"
        labels = header if stacked else [""] * len(header)
        head = "".join(_table_cell("th", name, right) for name, right in zip(header, numeric))
        body = "".join(
            "<tr>"
            + "".join(_table_cell("td", *cell) for cell in zip(row, numeric, labels))
            + "</tr>\n"
            for row in cells
        )
        return self._add(
            f'<div class="{css_class}"><table><thead><tr>{head}</tr></thead>\n'
            f"<tbody>\n{body}</tbody></table></div>"
        )

    def add_figure(self, figure: Any, caption: str) -> Report:
        """Append a Matplotlib figure, inline as SVG, to this report, and return this report."""
        picture = _render_svg(figure, len(self._parts), caption)
        return self._add(
            f"<figure>{picture}<figcaption>{_escape_html(caption)}</figcaption></figure>"
        )

    def add_figure_row(self, figures: dict[str, Any], caption: str) -> Report:
        """Append named Matplotlib figures to this report, and return this report. The figures are
        placed side by side, or one below the other if there is no space.
        """
        pictures = "".join(
            _render_svg(figure, f"{len(self._parts)} {name}", f"{name}: {caption}")
            for name, figure in figures.items()
        )
        text = f"<figcaption>{_escape_html(caption)}</figcaption>"
        return self._add(f'<figure class="row">{pictures}{text}</figure>')

    def add_chart(
        self, views: Sequence[dict[str, Any]], caption: str, *, still: bool = False
    ) -> Report:
        """Append a line chart to this report, and return this report.

        Parameters
        ----------
        views : list of dict
            Views between which the reader can switch. ``lines`` is a list of dicts with the keys
            ``name``, ``x`` and ``y``, optionally ``low`` and ``high`` for a band, and ``dots`` for
            markers. ``x`` and ``y`` are the scales: "linear", "log" or "asinh" (linear below
            ``width``). ``name``, ``xlabel`` and ``ylabel`` are the labels of the view and its
            axes. ``ticks`` are values marked on the x axis, and ``floor`` is the lower end of the
            y axis.
        caption : str
            The text below the chart.
        still : bool
            True to show the chart without zoom and pan; by default both axes have them.
        """
        data: dict[str, Any] = {"label": caption, "still": still}
        data["views"] = [{"width": 1.0} | to_json_value(view) for view in views]
        text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
        keys = "".join(
            f'<span class="key c{i}">\u2014 {_escape_html(line["name"])}</span> '
            for i, line in enumerate(views[0]["lines"])
        )
        if still and len(views[0]["lines"]) == 1:
            keys = ""
        self._charts = True
        return self._add(
            f'<figure class="chart"><script type="application/json">{text}</script>'
            f"<figcaption>{keys}{'<br>' * bool(keys)}{_escape_html(caption)}</figcaption></figure>"
        )

    def add_calls(self, calls: Iterable[tuple[str, str]]) -> Report:
        """Append numbers, each with Python code that returns the number, to this report, and return
        this report. `calls` holds pairs of strings: a number as it is shown, and its code. A button
        next to each number copies the code.
        """
        self._charts = True
        lines = "\n".join(_format_call(shown, code) for shown, code in calls)
        return self._add(f'<div class="calls">{lines}</div>')

    def add_code(self, text: str) -> Report:
        """Append lines of code to this report, with a button that copies these lines. Return this
        report.
        """
        self._charts = True
        return self._add(
            f'<div class="call">{_copy_button(text)}</div><pre>{html.escape(text)}</pre>'
        )

    def add_lead(self, sentence: str) -> Report:
        """Append a paragraph in larger letters, for the top of the page, to this report. Return
        this report.
        """
        return self._add(f'<p class="first">{_escape_markup(sentence)}</p>')

    def add_scatter(self, view: dict[str, Any], caption: str) -> Report:
        """Append dots, from which the reader chooses one by a click or by the arrow keys, to this
        report. Return this report.

        Parameters
        ----------
        view : dict
            ``x`` and ``y`` (M,) are the places of the dots, and ``names`` (M,) their names.
            ``low`` and ``high`` (M,) are the ends of a bar through each dot, and ``out`` (M,) marks
            dots in another colour. If ``diagonal`` is True, the line on which x and y are equal is
            drawn. ``axes`` holds ``xlabel`` and ``ylabel``.
            If a list of rows is shown for the chosen dot, further keys are needed. ``rows`` holds
            the cells of each row by row index, and ``columns`` the header of the list. ``others``
            (M, 10) are the row indices listed for each dot, and ``effects`` (M, 10) the number
            shown for each of these rows. ``about`` (M,) are words on each dot, and ``change`` is a
            sentence after these words.
        caption : str
            The text below the dots.
        """
        data = {"label": caption, "scatter": to_json_value(view)}
        text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
        self._charts = True
        return self._add(
            f'<figure class="chart scatter"><script type="application/json">{text}</script>'
            f"<figcaption>{_escape_html(caption)}</figcaption></figure>"
        )

    def add_ranges(
        self, header: Sequence[str], rows: Sequence[tuple[str, Any, Any, Any]]
    ) -> Report:
        """Append a table with the columns name, low, middle and high, and a bar for each range, to
        this report. All bars have one scale, which includes 0. Return this report.
        """
        numbers = np.array([row[1:] for row in rows], float)
        finite = numbers[np.isfinite(numbers)]
        low, high = finite.min(initial=0.0), finite.max(initial=0.0)
        share = 100 / ((high - low) or 1.0)
        body = []
        for (name, *_), (a, b, c) in zip(rows, numbers):
            left, middle, right = np.clip((a, b, c), low, high)
            bar = (
                f'<div class="span" aria-hidden="true"><u style="left:{-low * share:.1f}%"></u>'
                f'<i style="left:{(left - low) * share:.1f}%;width:{(right - left) * share:.1f}%">'
                f'</i><b style="left:{(middle - low) * share:.1f}%"></b></div>'
            )
            cells = "".join(_table_cell("td", f"{x:.3g}", True) for x in (a, b, c))
            body.append(
                f'<tr>{_table_cell("td", name, False)}<td class="range">{bar}</td>{cells}</tr>'
            )
        first, *rest = header
        head = (
            _table_cell("th", first, False)
            + "<th></th>"
            + "".join(_table_cell("th", h, True) for h in rest)
        )
        return self._add(
            f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n'
            + "\n".join(body)
            + "</tbody></table></div>"
        )

    def add_verdict(self, point: CriticalPoint) -> Report:
        """Append a verdict of `fastcurv.classify` to this report: a summary, its reason and a table
        of its evidence. Return this report.
        """
        self.add_verdict_sentence(point)
        return self.add_text(point.reason).add_table(["evidence", "value"], point.evidence())

    def add_verdict_sentence(self, point: CriticalPoint) -> Report:
        """Append a summary of the verdict `point` to this report: its kind, whether the kind is
        proved, and what to do next. Return this report.
        """
        kind = point.kind.replace("_", " ")
        return self._add(
            f'<div class="verdict"><b>{_escape_html(kind)}</b><br>'
            f"{_escape_markup(point.sentence)}</div>"
        )

    def to_html(self) -> str:
        """Return the page as one string."""
        script = f"<script>\n{_CHART_SCRIPT_PATH.read_text()}</script>\n" if self._charts else ""
        body = "\n".join(self._parts)
        return _PAGE_TEMPLATE.format(
            title=_escape_html(self.title), style=_STYLE_SHEET, body=body, script=script
        )

    def write(self, path: str | PathLike[str]) -> Path:
        """Write the page atomically, so that a reader sees either the old file or the whole new
        one.

        Returns
        -------
        pathlib.Path
            The absolute path.
        """
        return write_atomically(path, self.to_html().encode())

    def _add(self, part: str) -> Report:
        self._parts.append(part)
        return self


def _render_svg(figure: Any, salt: Any, caption: str) -> str:
    """Return a figure as SVG, with its caption as accessible label.

    `salt` makes the internal ids of the picture differ from those of the other pictures on the
    page. Black becomes the text colour of the page, in light and dark mode, and blue becomes its
    accent colour.
    """
    with optional_import("plots"):
        import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": str(salt)}):
        # The argument may be an Axes. Its figure is then rendered.
        figure = getattr(figure, "figure", figure)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text, name = file.getvalue(), html.escape(escape_unprintable(caption), quote=True)
    text = text.replace("#000000", "currentColor").replace("#0072b2", "var(--accent)")
    return (
        f'<svg role="img" fill="currentColor" aria-label="{name}"' + text[text.index("<svg") + 4 :]
    )


def _copy_button(code: str) -> str:
    return (
        f'<button type="button" class="copy" data-code="{html.escape(code, quote=True)}" '
        'aria-label="copy the call">copy</button>'
    )


def _format_call(shown: str, code: str) -> str:
    return (
        f'<div class="call"><span>{_escape_html(shown)} =</span><code>{_escape_html(code)}</code>'
        f"{_copy_button(code)}</div>"
    )


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float, np.integer, np.floating)) and not isinstance(x, bool)


def _to_json_value(x: Any) -> str:
    if isinstance(x, tuple):
        return " and ".join(map(_to_json_value, x))
    return f"{x:.6g}" if _is_number(x) else str(x)


def _table_cell(tag: str, value: Any, right: bool, label: str = "") -> str:
    attributes = ' class="number"' if right else ""
    attributes += f' data-label="{html.escape(label, quote=True)}"' if label else ""
    return f"<{tag}{attributes}>{_escape_markup(_to_json_value(value))}</{tag}>"


def _escape_markup(text: Any) -> str:
    """Escape text for the page, with text between backticks as code."""
    return _CODE_PATTERN.sub(r"<code>\1</code>", _escape_html(text))


def _escape_html(text: Any) -> str:
    return html.escape(escape_unprintable(text), quote=False)
