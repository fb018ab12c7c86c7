"""HTML representations for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    paragraphs: Iterable[str] = (),
) -> str:
    """Return the HTML source of a small table for a notebook, with the column names `head`, unless
    empty, and with every cell escaped. If `paragraphs` are given, `title` is a heading above the
    paragraphs and the table, otherwise the caption.

    Examples
    --------
    >>> html_table("a < b", [], [[1, 2]])
    '<table><caption>a &lt; b</caption><tbody><tr><td>1</td><td>2</td></tr></tbody></table>'
    """

    def format_row(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    body = "".join(format_row(row, "td") for row in rows)
    top = f"<thead>{format_row(head, 'th')}</thead>" if head else ""
    below = "".join(f"<p>{escape(text)}</p>" for text in paragraphs)
    if not below:
        return f"<table><caption>{escape(title)}</caption>{top}<tbody>{body}</tbody></table>"
    return f"<div><h4>{escape(title)}</h4>{below}<table>{top}<tbody>{body}</tbody></table></div>"


class TextReprHtmlMixin:
    """Base class of results that a notebook shows by their repr."""

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"
