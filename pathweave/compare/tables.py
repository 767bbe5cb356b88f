"""Tables as Markdown that can be read as it is, and as LaTeX for papers."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100

_LATEX = {
    **{character: "\\" + character for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}


@dataclass(frozen=True)
class ReportTable:
    """A table; the first column names the rows.

    Attributes:
        title: What it shows, in a line.
        header: Names of the columns.
        rows: The cells, as text.
        note: How to read it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def markdown(table: ReportTable, width: int = WIDTH) -> str:
    """Return a table as Markdown without its note, in parts where it is too wide.

    Args:
        table: The table.
        width: Characters that a line may have; a table of two columns is never split.

    Example:
        >>> print(markdown(ReportTable("Scores", ["method", "T"], [["ours", "63.2"]])))
        **Scores**
        <BLANKLINE>
        | method |    T |
        |--------|-----:|
        | ours   | 63.2 |
    """
    columns = list(zip(table.header, *table.rows, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]
    parts: list[list[int]] = [[]]
    for i in range(1, len(columns)):
        if parts[-1] and sum(widths[j] + 3 for j in (0, *parts[-1], i)) + 1 > width:
            parts.append([])
        parts[-1].append(i)
    blocks = [f"**{table.title}**"]
    for part in parts:
        padded = [[cell.rjust(widths[i]) for cell in columns[i]] for i in part]
        names = [cell.ljust(widths[0]) for cell in columns[0]]
        lines = [f"| {' | '.join(cells)} |" for cells in zip(names, *padded, strict=True)]
        rule = ["-" * (widths[0] + 2), *("-" * (widths[i] + 1) + ":" for i in part)]
        blocks.append("\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]]))
    return "\n\n".join(blocks)


def wrap(text: str, width: int = WIDTH) -> str:
    """Return a paragraph in lines of at most so many characters."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def latex(tables: Sequence[ReportTable]) -> str:
    """Return tables as LaTeX for the package booktabs."""
    return "\n\n".join(map(_tabular, tables)) + "\n"


def _tabular(table: ReportTable) -> str:
    head, *rows = [" & ".join(map(_escape, row)) + r" \\" for row in (table.header, *table.rows)]
    note = rf"\par\footnotesize {_escape(table.note)}" if table.note else ""
    return "\n".join(
        [
            *(r"\begin{table}", r"\centering", rf"\caption{{{_escape(table.title)}}}"),
            rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            *(r"\toprule", head, r"\midrule", *rows, r"\bottomrule"),
            rf"\end{{tabular}}{note}",
            r"\end{table}",
        ]
    )


def _escape(text: str) -> str:
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], text)
