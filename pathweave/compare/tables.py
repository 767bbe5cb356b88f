"""Tables as Markdown that can be read as it is, and as LaTeX for papers."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

WIDTH = 100

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}


@dataclass(frozen=True)
class Table:
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


def markdown(table: Table, width: int = WIDTH) -> str:
    """Return a table as Markdown without its note, in parts where it is too wide.

    Args:
        table: The table.
        width: Characters that a line may have; a table of two columns is never split.

    Example:
        >>> print(markdown(Table("Scores", ["method", "T"], [["ours", "63.2"]])))
        **Scores**
        <BLANKLINE>
        | method |    T |
        |--------|-----:|
        | ours   | 63.2 |
    """
    parts = [_grid(part) for part in _split(table, width)]
    return "\n\n".join([f"**{table.title}**", *parts])


def wrap(text: str, width: int = WIDTH) -> str:
    """Return a paragraph in lines of at most so many characters."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def latex(tables: Sequence[Table]) -> str:
    """Return tables as LaTeX for the package booktabs."""
    return "\n\n".join(_tabular(table) for table in tables) + "\n"


def _widths(table: Table) -> list[int]:
    columns = zip(table.header, *table.rows, strict=True)
    return [max(3, *(len(cell) for cell in column)) for column in columns]


def _split(table: Table, width: int) -> list[Table]:
    """Return the table cut between columns, each part with the first column."""
    widths = _widths(table)
    parts: list[list[int]] = [[]]
    for column in range(1, len(widths)):
        used = [0, *parts[-1], column]
        if parts[-1] and sum(widths[i] + 3 for i in used) + 1 > width:
            parts.append([])
        parts[-1].append(column)
    return [
        replace(
            table,
            header=[table.header[i] for i in (0, *part)],
            rows=[[row[i] for i in (0, *part)] for row in table.rows],
        )
        for part in parts
    ]


def _grid(table: Table) -> str:
    widths = _widths(table)
    rule = [
        "-" * (widths[i] + 2) if i == 0 else "-" * (widths[i] + 1) + ":" for i in range(len(widths))
    ]
    lines = [_line(table.header, widths), f"|{'|'.join(rule)}|"]
    return "\n".join([*lines, *(_line(row, widths) for row in table.rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    shown = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(shown)} |"


def _tabular(table: Table) -> str:
    rows = [" & ".join(_escape(cell) for cell in row) + r" \\" for row in table.rows]
    note = rf"\par\footnotesize {_escape(table.note)}" if table.note else ""
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            r"\toprule",
            " & ".join(_escape(name) for name in table.header) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            rf"\end{{tabular}}{note}",
            r"\end{table}",
        ]
    )


def _escape(text: str) -> str:
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], text)
