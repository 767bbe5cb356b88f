"""Fills paths and names with the fields of a record.

A pattern is a format string: ``{video}``, ``{ids[0]}``, ``{id:012d}``, ``{start:.1f}``. Values are
converted as the format needs, since every field of a CSV file is text. Formats of paths: ``stem``
is without the ending, ``last2`` the last two parts.
"""

import string
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pathweave.errors import ManifestError


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
        if format_spec == "stem":
            return _stem(str(value))
        if format_spec == "last2":
            return "/".join(PurePosixPath(str(value)).parts[-2:])
        try:
            number = format_spec[-1:] in ("d", "f")
            converted = float(value) if number else value
            whole = int(converted) if format_spec.endswith("d") else converted
            return format(whole, format_spec)
        except (TypeError, ValueError, OverflowError) as error:
            raise ManifestError(f"a number must stand here, got {value!r:.40}") from error


def _stem(path: str) -> str:
    try:
        return str(PurePosixPath(path).with_suffix(""))
    except ValueError as error:
        raise ManifestError(f"a path must name a file, got {path!r:.80}") from error


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
        ManifestError: Also if a path leads out of the root.
    """
    paths = fill(patterns, record)
    for path in paths:
        parts = PurePosixPath(path).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in path:
            raise ManifestError(f"the path of a medium must stay below the root, got {path!r:.80}")
    return paths
