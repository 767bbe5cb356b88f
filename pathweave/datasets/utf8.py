"""Text that is not UTF-8: files are read so that such bytes become halves of characters."""

import re

_HALF = re.compile("[\ud800-\udfff]")


def find_bad_text(value: object) -> str:
    r"""Return a piece of text around the first byte that is not UTF-8, or an empty text.

    Args:
        value: A text, or lists and objects with texts.

    Example:
        >>> find_bad_text({"caf\udce9": 1})
        "'caf\\udce9'"
    """
    if isinstance(value, str):
        found = _HALF.search(value)
        return ascii(value[max(0, found.start() - 20) : found.start() + 20]) if found else ""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        return next((bad for element in value if (bad := find_bad_text(element))), "")
    return ""


def printable(text: str) -> str:
    r"""Return text that can be written as UTF-8; what cannot becomes an escape, also one of JSON.

    Example:
        >>> print(printable("caf\udce9"))
        caf\udce9
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
