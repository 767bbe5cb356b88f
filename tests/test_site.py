"""The site as it is built: whole, at home anywhere, and with nothing from another host."""

import re
import warnings
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
LOADED = r"<(?:script|img|iframe|source)\b[^>]*?\ssrc=\"([^\"]+)|<link\b[^>]*?href=\"([^\"]+)"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for module in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(module, reason="the site needs the extra docs")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    out = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.chdir(ROOT)  # as `make site` is run
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(out), strict=True))
    return out


@pytest.fixture(scope="module")
def pages(site):
    return {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}


def test_every_link_of_the_site_leads_to_a_place_in_it(site, pages):
    ids = {page: set(re.findall(r"\s(?:id|name)=\"([^\"]+)", text)) for page, text in pages.items()}
    seen = 0
    for page, text in pages.items():
        if page.name == "404.html":  # its links begin where the site is, which nothing tells it
            continue
        for link in re.findall(r"<a\b[^>]*?\shref=\"([^\"]*)", text):
            target, _, anchor = unquote(unescape(link)).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            file = (page.parent / target).resolve() if target else page
            file = file / "index.html" if file.is_dir() else file
            assert file.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in ids.get(file, ()), f"{page.name}: {link}"
            seen += 1
    assert seen > 1000


def test_nothing_is_loaded_from_another_host(site, pages):
    for page, text in pages.items():
        loaded = ["".join(each) for each in re.findall(LOADED, text)]
        # The page of results of others is one file, which loads nothing at all.
        assert bool(loaded) == (page.parent.name != "leaderboard"), page
        assert not [each for each in loaded if re.match(r"(https?:)?//", each)], page
    sheets = [sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css")]
    assert not [sheet for sheet in sheets if re.search(r"url\(\"?(https?:)?//", sheet)]


def test_a_test_that_a_page_names_is_shown(site, pages):
    text = pages[site / "elsewhere.html"]
    links = re.findall(r"href=\"(source/tests/[^\"#]+)(#[^\"]+)?\"><code>(\w+)", text)
    assert len(links) > 30
    for target, anchor, name in links:
        assert anchor == f"#{name}"
        assert f">{name}</" in pages[site / target]


def test_llms_txt_lists_every_page_with_what_it_says(site):
    text = (site / "llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# PathWeave\n\n> Give a vision language model new senses")
    entries = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): (.+)$", text, re.MULTILINE)
    listed = re.findall(r"^ +- .*?([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    assert [target for target, _ in entries] == listed
    assert all(len(said) > 20 for _, said in entries)
    assert "ask(contents: Sequence" in (site / "reference/python.md").read_text(encoding="utf-8")
    for twin in listed:
        for target in re.findall(r"\]\(([^)\s:#]+\.md)", (site / twin).read_text(encoding="utf-8")):
            assert ((site / twin).parent / target).exists(), f"{twin}: {target}"


def test_examples_of_docstrings_are_code(site, pages):
    text = pages[site / "reference/nn.html"]
    assert "W_up (W_down x + b_down)" in text
    assert "\\mathrm" not in text
    assert "&gt;&gt;&gt;" in text
    assert "<blockquote>" not in text
