"""Fills paths and names with the fields of a record.

A pattern is a format string: ``{video}``, ``{ids[0]}``, ``{id:012d}``, ``{start:.1f}``. Values are
converted as the format needs, since every field of a CSV file is text. Formats of paths: ``stem``
is without the ending, ``last2`` the last two parts.
"""

import re
import string
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pathweave.errors import ManifestError

_URL = re.compile(r"[\w+.-]+://|data:")


class _Filler(string.Formatter):
    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        try:
            value, key = super().get_field(field_name, args, kwargs)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ManifestError(
                f"a record must have the field {field_name!r}, got the fields {names(kwargs)}"
            ) from error
        if value is None or value == "":
            raise ManifestError(f"the field {field_name!r} must hold a value, got {value!r}")
        return value, key

    def format_field(self, value: Any, format_spec: str) -> str:  # noqa: ANN401
        try:
            if format_spec == "stem":
                return str(PurePosixPath(str(value)).with_suffix(""))
            if format_spec == "last2":
                return "/".join(PurePosixPath(str(value)).parts[-2:])
            number = float(value) if format_spec.endswith(("d", "f")) else value
            return format(int(number) if format_spec.endswith("d") else number, format_spec)
        except (TypeError, ValueError, OverflowError) as error:
            rule = (
                "a path must name a file" if format_spec == "stem" else "a number must stand here"
            )
            raise ManifestError(f"{rule}, got {value!r:.80}") from error


_filler = _Filler()

# What the reader adds to the fields of a record.
ADDED = ("split", "row", "folder")


def names(record: Mapping[str, Any]) -> str:
    """Return the names of the fields that a record itself has, for messages."""
    return ", ".join(str(name) for name in record if name not in ADDED)[:120]


def fill(patterns: tuple[str, ...], record: Mapping[str, Any]) -> list[str]:
    """Return every pattern that can be filled with the fields of a record, filled, in order.

    Raises:
        ManifestError: If there is none: a field is missing, or a value cannot be formatted.

    Example:
        >>> fill(("{split}/{id}_{start:d}.flac", "{no}.wav"), {"split": "val", "id": "x",
        ...                                                    "start": "30.0"})
        ['val/x_30.flac']
    """
    filled = []
    for pattern in patterns:
        try:
            filled.append(_filler.vformat(pattern, (), record))
        except ManifestError as error:
            failed = error
    if not filled:
        raise failed
    return filled


def fill_path(patterns: tuple[str, ...], record: Mapping[str, Any]) -> list[str]:
    """Return filled patterns as paths below a root.

    Raises:
        ManifestError: Also if one is no path of a file below it, see ``check_path``.
    """
    return [check_path(path) for path in fill(patterns, record)]


def check_path(path: object) -> str:
    """Return what an annotation names, if it is the path of a file below the directory of media.

    Raises:
        ManifestError: If it is not.
    """
    if not isinstance(path, str) or not path:
        raise ManifestError(f"a medium must be named by its path, got {path!r:.60}")
    if _URL.match(path):
        raise ManifestError(
            f"a medium must be a file, got {path[:60]!r}; download or unpack it and name the file"
        )
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in path:
        raise ManifestError(
            f"the path of a medium must stay below the directory of media, got {path[:80]!r}"
        )
    return path
