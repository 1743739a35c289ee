"""How values look in a notebook: plain HTML tables, which take the style of the page."""

import html
from collections.abc import Iterable, Sequence


def table(title: str, rows: Iterable[Sequence[object]], head: Sequence[str] = ()) -> str:
    """Return an HTML table: a title, perhaps a row of headings, and rows that begin with a name.

    All of it is text, which is escaped.

    >>> table("Plan", [("reads", "< 2")])
    '<table><caption>Plan</caption><tbody><tr><th>reads</th><td>&lt; 2</td></tr></tbody></table>'
    """
    top = f"<thead><tr>{''.join(map(_heading, head))}</tr></thead>" if head else ""
    lines = "".join(
        f"<tr>{_heading(name)}{''.join(map(_cell, values))}</tr>" for name, *values in rows
    )
    return f"<table><caption>{_text(title)}</caption>{top}<tbody>{lines}</tbody></table>"


def described(shape: Sequence[int], dtype: object) -> str:
    """Return shape and dtype of an image in words.

    >>> described((512, 1024), "uint16")
    '512 x 1024 uint16'
    """
    return f"{' x '.join(map(str, shape))} {dtype}"


def _heading(value: object) -> str:
    return f"<th>{_text(value)}</th>"


def _cell(value: object) -> str:
    return f"<td>{_text(value)}</td>"


def _text(value: object) -> str:
    return html.escape(str(value))
