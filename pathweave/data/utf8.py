"""Text that is no UTF-8: half a character of JSON, or a byte of another encoding in its place."""

import re

_HALF = re.compile("[\ud800-\udfff]")


def find_bad_text(value: object) -> str:
    r"""Return a piece of text around the first half of a character, or an empty text.

    Args:
        value: A text, or lists and objects with texts, nested however deep.

    Example:
        >>> find_bad_text({"caf\udce9": 1})
        "'caf\\udce9'"
    """
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            if found := _HALF.search(value):
                return ascii(value[max(0, found.start() - 20) : found.start() + 20])
        elif isinstance(value, dict):
            rest += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            rest += value
    return ""


def printable(text: str) -> str:
    r"""Return text that can be written as UTF-8; what cannot becomes an escape, also one of JSON.

    Example:
        >>> print(printable("caf\udce9"))
        caf\udce9
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
