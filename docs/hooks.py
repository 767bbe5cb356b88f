"""Hooks of the site: files outside ``docs/`` as pages, and pages as text.

Pages link to tests, examples and other files of the repository. Each file linked to becomes a page
below ``source/``; in a Python file every function and class has an anchor, so that a link whose
text is a name leads there. Every page is also written as Markdown beside its HTML, and ``llms.txt``
(llmstxt.org) lists them.
"""

import ast
import inspect
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from posixpath import normpath, relpath

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

from scripts import reference_pages

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?\[((?:[^\[\]]|!?\[[^\]]*\]\([^)]*\))*)\])\(([^)\s#:]+)(#[^)\s]*)?\)")
DIRECTIVE = re.compile(r"^::: pathweave\.(\S+)\n(?:    .*\n?)*", re.MULTILINE)
PICTURES = (".png", ".svg")
UNLISTED = "---\nsearch:\n  exclude: true\n---\n"
_texts: dict[str, str] = {}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages of the commands, and of all files outside ``docs/`` that pages link to."""
    made = {"commands": reference_pages.commands(), "recipe": reference_pages.recipe()}
    for name, content in made.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    pages = [f"docs/{file.src_uri}" for file in files.documentation_pages() if file.abs_src_path]
    seen = set(pages)
    while pages:
        page = pages.pop()
        if not page.endswith(".md"):
            continue
        for match in LINK.finditer((ROOT / page).read_text(encoding="utf-8")):
            target = _target(page, match[3])
            if target in seen or target.startswith("docs/") or not (ROOT / target).is_file():
                continue
            seen.add(target)
            pages.append(target)
            if target.endswith(PICTURES):
                found = File.generated(config, _uri(target), abs_src_path=str(ROOT / target))
            else:
                found = File.generated(config, _uri(target), content=UNLISTED + _source(target))
            files.append(found)
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """Point links out of ``docs/`` to the pages of their files, and note the text."""
    uri = page.file.src_uri
    origin = uri.removeprefix("source/") if uri.startswith("source/") else f"docs/{uri}"

    def pointed(match: re.Match[str]) -> str:
        label, text, written, anchor = match.groups()
        target = _target(origin, written)
        if not (ROOT / target).is_file():
            return match[0]
        anchor = anchor or _anchor(target, text)
        # A link around a picture holds a link.
        label = LINK.sub(pointed, label) if "](" in label else label
        return f"{label}({relpath(_uri(target), os.path.dirname(uri) or '.')}{anchor})"

    _texts[uri] = markdown if uri.endswith(".py.md") else LINK.sub(pointed, markdown)
    return _texts[uri]


def on_nav(nav: Navigation, config: MkDocsConfig, **_: object) -> None:
    """Keep the order of pages for ``llms.txt``."""
    config.extra["sections"] = [
        (item.title, _pages(item)) if isinstance(item, Section) else (None, [item])
        for item in nav.items
    ]


def on_post_build(config: MkDocsConfig) -> None:
    """Write the text of every page, and ``llms.txt``."""
    site = Path(config.site_dir)
    code = griffe.load("pathweave", search_paths=[ROOT])
    for uri, text in _texts.items():
        (site / uri).parent.mkdir(parents=True, exist_ok=True)
        whole = DIRECTIVE.sub(lambda match: _documented(code[match[1]]), text)
        (site / uri).write_text(whole, encoding="utf-8")
    lines = [f"# {config.site_name}\n", f"> {config.site_description}\n"]
    for title, pages in config.extra["sections"]:
        lines += [f"## {title}\n"] if title else []
        lines += [
            f"- [{page.title}]({config.site_url or ''}{page.file.src_uri}): "
            f"{summary(_texts[page.file.src_uri])}"
            for page in pages
        ]
        lines += [""] if pages else []
    (site / "llms.txt").write_text("\n".join(lines), encoding="utf-8")


def summary(text: str) -> str:
    """Return the first sentence of the first paragraph of a page, without marks and links."""
    paragraphs = re.split(r"\n\s*\n", re.sub(r"```.*?```|<!--.*?-->", "", text, flags=re.DOTALL))
    prose = next(p for p in paragraphs if re.match(r"[\w*`\"'\[(]", p.strip()) and p[:4].strip())
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(prose.split())).replace("**", "")
    return re.split(r"(?<=[.?!])\s", plain)[0]


def _pages(section: Section) -> list[Page]:
    found = []
    for child in section.children:
        found += _pages(child) if isinstance(child, Section) else [child]
    return found


def _documented(part: griffe.Object) -> str:
    """Return what the code says of a part of it, as Markdown."""
    if part.is_module:
        own = [each for each in part.members.values() if not each.is_alias and each.is_class]
        return "".join(map(_documented, own))
    shown = part.signature() if part.is_function else f"class {part.name}"
    said = inspect.cleandoc(part.docstring.value) if part.docstring else ""
    text = f"### {part.path}\n\n```python\n{shown}\n```\n\n{said}\n\n"
    if part.is_class:
        own = [m for m in part.members.values() if not m.is_alias and m.is_function]
        text += "".join(_documented(each) for each in own if not each.name.startswith("_"))
    return text


def _target(page: str, link: str) -> str:
    """Return the path of what a page links to, from the root of the repository."""
    return normpath(f"{os.path.dirname(page) or '.'}/{link}")


def _uri(target: str) -> str:
    """Return where the site has a file of the repository."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"source/{target}" + ("" if target.endswith((".md", *PICTURES)) else ".md")


def _anchor(target: str, text: str) -> str:
    """Return the anchor of what a link names in a Python file."""
    name = text.strip("`").split(".")[-1].removesuffix("()")
    is_there = target.endswith(".py") and name in dict(_definitions(ROOT / target))
    return f"#{name}" if is_there else ""


def _definitions(file: Path) -> Iterator[tuple[str, int]]:
    """Yield the functions and classes of a file, and the lines where they begin."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, min([node.lineno, *(d.lineno for d in node.decorator_list)])


def _source(target: str) -> str:
    """Return a file of the repository as a page."""
    text = (ROOT / target).read_text(encoding="utf-8")
    if target.endswith(".md"):
        return text
    kind = target.rpartition(".")[2] if target.endswith((".py", ".yaml", ".json", ".sh")) else ""
    if kind != "py":
        return f"# {target}\n\n~~~~~{kind}\n{text}~~~~~\n"
    lines = text.splitlines(keepends=True)
    cuts = list(_definitions(ROOT / target))
    starts = [0, *(line - 1 for _, line in cuts), len(lines)]
    parts = ["".join(lines[a:b]).rstrip() for a, b in pairwise(starts)]
    heads = [f"# {target}", *(f"## {name} {{: #{name} }}" for name, _ in cuts)]
    return "".join(f"{h}\n\n~~~~~py\n{p}\n~~~~~\n\n" for h, p in zip(heads, parts, strict=True))
