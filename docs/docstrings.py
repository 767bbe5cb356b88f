"""Docstrings for the site: examples as code, and formulas without TeX."""

import re

import griffe

EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
FORMULA = re.compile(r"\$([^$]+)\$")
TEX = (
    (r"\\,", " "),
    (r"\\hat A", "A'"),
    (r"\\mathrm\{(\w+)\}", r"\1"),
    (r"_\{(\w+)\}", r"_\1"),
    (r"\\epsilon", "e"),
    (r"\\sim", "~"),
    (r"\s+", " "),
)


class Docstrings(griffe.Extension):
    """What the parser of docstrings and a page without a TeX program need."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring:
            text = EXAMPLE.sub(r"\1Examples:", obj.docstring.value)
            obj.docstring.value = FORMULA.sub(_formula, text)


def _formula(match: re.Match[str]) -> str:
    formula = match[1]
    for pattern, words in TEX:
        formula = re.sub(pattern, words, formula)
    return f"`{formula}`"
