"""Escaping of untrusted text: each output format interprets some characters as commands.

Names of images, patients, subsets, models and files come from whoever made them. They pass through one of these
functions where they leave for a terminal, a table, a page or a picture, and appear there as they are written.
"""

import html
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    r"""Escape everything that is not printable, such as `\x1b` or `\u202e`; line breaks are kept.

    The result cannot move a cursor, colour a terminal, or change the direction of writing.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(sign if sign == "\n" or not _is_hidden(sign) else _escaped(sign) for sign in text)


def one_line(text: str) -> str:
    """The printable text with single spaces for its line breaks and tabs."""
    return printable(" ".join(text.split()))


def _is_hidden(sign: str) -> bool:
    """Controls, directions and joiners, surrogates, private use, line separators; spaces of any width are none."""
    return not sign.isprintable() and unicodedata.category(sign) != "Zs"


def _escaped(sign: str) -> str:
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def as_names(one_or_more: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return one name, given as text, or several as a tuple."""
    return (one_or_more,) if isinstance(one_or_more, str) else tuple(one_or_more or ())


def file_name(model: str) -> str:
    """Convert a model's name, which may be a path with a factory, to a file name without extension."""
    base = model.replace("\\", "/").split("/")[-1]
    return base.replace(".py:", ":").removesuffix(".pt2").replace(":", "-")


def for_csv(value: object) -> object:
    """Escape a cell of a CSV: text that a spreadsheet would read as a formula is prefixed by an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip("' ")[:1] in _FORMULA and not _is_number(text) else text


def from_csv(text: str) -> str:
    """Restore the text from a cell made by `for_csv`."""
    return text[1:] if text.startswith("'") and text.lstrip("' ")[:1] in _FORMULA else text


_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""First characters of a formula, also in their full-width forms."""


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII) is not None


def for_html(text: str) -> str:
    """The text within an element of a page; plotly reads such elements too."""
    return html.escape(printable(text), quote=False)


def for_script(json: str) -> str:
    """JSON within a script element, which it cannot end."""
    return json.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def for_markdown(text: str) -> str:
    """A cell of a pipe table: no cell ends early, no element, link, picture, code or emphasis begins."""
    return re.sub(r"[\\`|*]|(?<=\])[(\[:]|(?<!\w)_|_(?!\w)|!(?=\[)|<(?=\S)|&(?=#?\w+;)", r"\\\g<0>", one_line(text))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a pipe table of escaped cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(for_markdown, line)) + " |" for line in lines)


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Format aligned columns for a terminal; the first `left` columns are text, the others numbers."""
    lines = [[one_line(cell) for cell in line] for line in (head, *rows)]
    columns = [_aligned(column, place < left) for place, column in enumerate(zip(*lines, strict=True))]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def _aligned(cells: Sequence[str], is_text: bool) -> list[str]:
    width = max(map(len, cells))
    return [cell.ljust(width) if is_text else cell.rjust(width) for cell in cells]


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Format an HTML table of escaped cells; the first `left` columns are text, the others numbers."""

    def row(cells: Sequence[str], tag: str) -> str:
        sides = ("left" if place < left else "right" for place in range(len(cells)))
        inner = (
            f'<{tag} style="text-align:{side}">{for_html(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        return f"<tr>{''.join(inner)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f"<table><thead>{row(head, 'th')}</thead><tbody>{body}</tbody></table>"


_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "°": r"$^\circ$",
    "²": r"$^2$",
    "−": r"$-$",
    "–": "--",
    "<": r"$<$",
    ">": r"$>$",
    "√": r"$\surd$",
}


def for_latex(text: str) -> str:
    """Escape a cell of a LaTeX tabular, so that nothing in it is a command."""
    cell = "".join(_LATEX.get(sign, sign) for sign in one_line(text))
    return f"{{}}{cell}" if cell[:1] in ("[", "*") else cell  # else options of the line break before it


def for_matplotlib(text: str) -> str:
    """The text in a picture, where dollars are not the bounds of a formula."""
    return printable(text).replace("$", r"\$")


def format_p(value: float) -> str:
    """A p value to two or three decimals; a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
