"""Pages of the site that are made from what the program says of itself: commands and recipes."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from typer.main import get_command

from pathweave.cli import app
from pathweave.recipe.schema import Recipe

Schema = Mapping[str, Any]
LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
RECIPE = """# Recipe

Every field of a recipe: what it may be, its default and what it means. [Your own
data](../own_data.md#2-a-recipe) explains a recipe step by step. On the command line `--set
field.field=value` changes any field; a field or name that does not exist is refused, with the
nearest that does.

"""
COMMANDS = """# Commands

Every command of `pathweave`, as `--help` tells it. [Running](../running.md) says when to use which.

"""


def commands() -> str:
    """Return the page of all commands."""
    text = COMMANDS
    for context in leaves(get_command(app), "pathweave"):
        usage = " ".join(context.command.collect_usage_pieces(context))
        told = (context.command.help or "").strip().replace("Example: ", "    ")
        text += f"## {context.command_path}\n\n    {context.command_path} {usage}\n\n{told}\n\n"
        for parameter in context.command.params:
            record = parameter.get_help_record(context)
            if record and not getattr(parameter, "hidden", False):
                text += f"- `{record[0].strip()}`: {_escaped(record[1])}\n"
        text += "\n"
    return text


def leaves(command: Any, name: str, parent: Any = None) -> Iterator[Any]:  # noqa: ANN401
    """Yield a context of every command that is shown, of a command or below a group of them.

    Args:
        command: The command, of click or of the copy of it in typer.
        name: How it is called.
        parent: Context of the group that it belongs to.
    """
    context = command.context_class(command, info_name=name, parent=parent)
    if not hasattr(command, "commands"):
        yield context
        return
    for child in command.list_commands(context):
        found = command.get_command(context, child)
        if not found.hidden:
            yield from leaves(found, child, context)


def recipe() -> str:
    """Return the page of all fields of a recipe, a section each."""
    schema = Recipe.model_json_schema()
    sections = {"Recipe": schema, **schema["$defs"]}
    order = dict.fromkeys(["Recipe"])
    queue = ["Recipe"]
    for name in queue:
        found = [other for other in _named(sections[name]) if other not in order]
        order.update(dict.fromkeys(found))
        queue += found
    return RECIPE + "\n".join(_section(name, sections[name]) for name in order)


def _section(name: str, section: Schema) -> str:
    needed = section.get("required", ())
    rows = [
        f"| `{field}` | {_kind(about)} | {_default(about, field in needed)} | "
        f"{_escaped(about.get('description', ''))} |"
        for field, about in section.get("properties", {}).items()
    ]
    table = ["| field | is | default | meaning |", "|---|---|---|---|", *rows] if rows else []
    about = section.get("description", "").split("\n\n")[0].replace("``", "`")
    return "\n".join([f"## {name}\n", f"{about}\n", *table, ""])


def _kind(about: Schema) -> str:
    """Return what a value may be, in words."""
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in about:
        return " or ".join(dict.fromkeys(_kind(each) for each in about["anyOf"]))
    if "enum" in about or "const" in about:
        return " or ".join(f"`{value}`" for value in about.get("enum", [about.get("const")]))
    kind = str(about.get("type", "any"))
    if kind == "array":
        inner = about.get("items") or about.get("prefixItems", [{}])[0]
        return f"list of {_kind(inner)}"
    if kind == "object" and isinstance(about.get("additionalProperties"), Mapping):
        return f"{_kind(about['additionalProperties'])} by name"
    if kind == "null":
        return "`null`"
    limits = [f"{sign} {about[word]}" for word, sign in LIMITS.items() if word in about]
    words = {"object": "fields", "string": "text", "boolean": "`true` or `false`"}
    return " ".join([words.get(kind, kind), *([" and ".join(limits)] if limits else [])])


def _default(about: Schema, is_needed: bool) -> str:
    if is_needed or "default" not in about:
        return "required" if is_needed else ""
    default = about["default"]
    if isinstance(default, Mapping) and default:
        return "the defaults there"
    return f"`{json.dumps(default)}`"


def _named(section: Any) -> Iterator[str]:  # noqa: ANN401 (any part of a schema)
    """Yield the sections that a part of a schema refers to, in order."""
    if isinstance(section, Mapping):
        if "$ref" in section:
            yield section["$ref"].rpartition("/")[2]
        for key, value in section.items():
            if key not in ("$defs", "default"):
                yield from _named(value)
    elif isinstance(section, list):
        for value in section:
            yield from _named(value)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
