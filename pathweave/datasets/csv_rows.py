"""Reads CSV row by row; a quotation mark that is never closed costs its own line alone."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator

from pathweave.data.utf8 import find_bad_text
from pathweave.errors import ManifestError


class _Lines:
    """Lines of a file; those taken since ``begin`` can be taken once more."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._again: deque[str] = deque()
        self._taken: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._taken.append(line)
        return line

    def begin(self) -> None:
        """Begin a row."""
        self._taken.clear()

    def give_back(self) -> None:
        """Give back all lines of the row but its first."""
        self._again.extendleft(reversed(self._taken[1:]))


def iterate_csv(
    lines: Iterable[str], name: str, columns: tuple[str, ...], delimiter: str
) -> Iterator[tuple[dict[str, str] | None, str]]:
    r"""Yield each row as a record, or None and what is wrong with it.

    Args:
        lines: The lines of the file.
        name: Its name, for messages.
        columns: Names of the columns; empty takes them from the first row.
        delimiter: What stands between values.

    Raises:
        ManifestError: If there is no row of names, or it is no CSV in UTF-8.

    Example:
        >>> list(iterate_csv(['id,says\n', '1,"Hi\n', '2,Yes\n'], "a.csv", (), ","))[1]
        ({'id': '2', 'says': 'Yes'}, '')
    """
    taken = _Lines(lines)
    rows = csv.reader(taken, delimiter=delimiter, skipinitialspace=True, strict=True)
    names = columns or _header(rows, name)
    while True:
        taken.begin()
        try:
            row = next(rows, None)
            if row is None:
                return
            problem = _wrong_length(row, names)
        except csv.Error as error:
            problem = f"a row must be CSV with its quotation marks closed, got {error}"
        if problem:
            # A row that goes over several lines and is wrong is most likely one with a stray mark,
            # and the lines after its first are rows of their own.
            taken.give_back()
            yield None, problem
        elif row:
            yield dict(zip(names, row, strict=True)), ""


def _wrong_length(row: list[str], names: tuple[str, ...]) -> str:
    if not row or len(row) == len(names):
        return ""
    return f"a row must have the columns {', '.join(names)}, got {len(row)} values"


def _header(rows: Iterator[list[str]], name: str) -> tuple[str, ...]:
    rule = f"{name} must begin with the names of columns"
    try:
        names = next((row for row in rows if row), [])
    except csv.Error as error:
        raise ManifestError(f"{rule}, got {error}; correct its first line") from error
    if not names:
        raise ManifestError(f"{rule}, got an empty file; download it again")
    if bad := find_bad_text(names):
        raise ManifestError(f"{rule} in UTF-8, got {bad}; convert the file to UTF-8")
    return tuple(names)
