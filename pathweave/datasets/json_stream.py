"""Stream of the records of a JSON file, read one by one, however large the file is.

In memory are one record and a piece of text of its size (at least 64 KiB). The standard decoder
reads each value: fast streaming parsers make a question mark of half a character and give up at a
byte that is not UTF-8, where here only the record it is in is broken.
"""

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from pathweave.errors import ManifestError

_PIECE = 1 << 16
_AFTER = frozenset(",]} \t\r\n")
_NO_SPACE = re.compile(r"[^ \t\r\n]")
_ENDS = {"[": "]", "{": "}"}

# The longest piece of syntax that may be cut at the end of what is in memory: an escaped character.
_LONGEST = 16
_decode = json.JSONDecoder().raw_decode


def iterate_json(file: io.TextIOBase, name: str, key: str | None = None) -> Iterator[Any]:
    """Yield the records of a JSON file.

    Args:
        file: The file, at its beginning.
        name: Its name, for messages.
        key: Where the records are. None: the file is a list of them, or an object with one record
            under each name; the name is put into the record as ``sample_id``, and what is no object
            is put under ``data``. A name: the list of that name in the top-level object. ``*``:
            the first list in it.

    Raises:
        ManifestError: If the file breaks off or is not JSON, or there is no such list.

    Example:
        >>> list(iterate_json(io.StringIO('{"info": 1, "data": [{"id": 7}]}'), "a.json", "data"))
        [{'id': 7}]
        >>> list(iterate_json(io.StringIO('{"q1": {"answer": "yes"}}'), "a.json"))
        [{'sample_id': 'q1', 'answer': 'yes'}]
    """
    text = _Text(file, name)
    start = text.peek()
    again = "download the file again or name the right one"
    if start not in ("{", "[" if key is None else "{"):
        what = "an object or a list" if key is None else f"an object with the list {key!r}"
        raise ManifestError(f"{name} must hold {what}, got {text.ahead(20)!r}; {again}")
    passed, found = [], key is None
    for field in text.elements():
        if key is None:
            value = text.value()
            if start == "{":
                record = value if isinstance(value, dict) else {"data": value}
                value = {"sample_id": field, **record}
            yield value
            continue
        is_list = text.peek() == "["
        is_wanted = is_list and not found and key in (field, "*")
        # A list that is not wanted is passed over piece by piece, of whatever length it is.
        for _ in text.elements() if is_list else (None,):
            value = text.value()
            if is_wanted:
                yield value
        found |= is_wanted
        passed.append(field)
    if not found:
        fields = f"got the fields {passed[:8]}"
        raise ManifestError(f"{name} must hold the list {key!r}, {fields}; {again}")
    if end := text.peek():
        if start == end == "{":
            raise ManifestError(
                f"{name} must hold one object or list, got another object after the first; if "
                "every line is one, rename it to .jsonl"
            )
        raise text.broken(f"end of the file expected, found {end!r}")


class _Text:
    """The text that has not been read yet, of which a piece is in memory."""

    def __init__(self, file: io.TextIOBase, name: str) -> None:
        self._file, self._name = file, name
        self._piece, self._at, self._ended = "", 0, False
        self._count = 0

    def peek(self) -> str:
        """Return the next character that is no space, or an empty string at the end."""
        while not (found := _NO_SPACE.search(self._piece, self._at)):
            self._at = len(self._piece)
            if not self._read():
                return ""
        self._at = found.start()
        return found[0]

    def ahead(self, length: int) -> str:
        return self._piece[self._at : self._at + length]

    def broken(self, what: str) -> ManifestError:
        return ManifestError(
            f"{self._name} must be whole JSON, got {what} after {self._count:,} records, before "
            f"{self.ahead(30)!r}; download or write the file again"
        )

    def elements(self) -> Iterator[str]:
        """Yield the names of the object that begins here, or an empty text for each list element.

        The value of each must be read in between.
        """
        end, name = _ENDS[self._take("[{")], ""
        more = self.peek() != end
        while more:
            if end == "}":
                if self.peek() != '"':
                    raise self.broken("no name in an object")
                name = self.value()
                self._take(":")
            yield name
            self._count += end == "]"
            if more := self.peek() == ",":
                self._take(",")
        self._take(end)

    def value(self) -> Any:  # noqa: ANN401
        """Return the value that begins here."""
        self.peek()
        while True:
            try:
                value, end = _decode(self._piece, self._at)
            except json.JSONDecodeError as error:
                # What is cut is read on; what is no JSON is told at once, however much follows.
                near_end = error.pos > len(self._piece) - _LONGEST
                may_go_on = near_end or error.msg.startswith("Unterminated")
                if not may_go_on or not self._read():
                    raise self.broken(error.msg.lower()) from error
                continue
            except RecursionError as error:
                raise self.broken("values nested too deep") from error
            except ValueError as error:
                raise self.broken("a number of thousands of digits") from error
            # A number may go on in the next piece, also after what looks like its end ("1." "1e").
            is_cut = isinstance(value, int | float) and self._piece[end : end + 1] not in _AFTER
            if not is_cut or not self._read():
                self._at = end
                return value

    def _take(self, characters: str) -> str:
        if (found := self.peek()) not in characters or not found:
            raise self.broken(f"no {characters!r}")
        self._at += 1
        return found

    def _read(self) -> bool:
        if self._ended:
            return False
        # As much as is waiting: a long value is then tried a few times, not once for each piece.
        more = self._file.read(max(_PIECE, len(self._piece) - self._at))
        self._ended = not more
        self._piece, self._at = self._piece[self._at :] + more, 0
        return not self._ended
