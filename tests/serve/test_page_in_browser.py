"""The page in headless Chromium, without a mouse."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from pathweave.serve.in_process import InProcess
from pathweave.serve.service import Limits, Service
from scripts.browser import CHROMIUM, Browser
from tests.decoders.files import film
from tests.serve.senses import DECODERS, assistant_of_all, files_of_all
from tests.serve.served import served

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
ANSWERED = "!document.querySelector('#answers').hidden && document.querySelector('#stop').hidden"


@pytest.fixture(scope="module")
def address(tmp_path_factory, finished_run):
    assistant = assistant_of_all(tmp_path_factory.mktemp("features"))
    service = Service(assistant, InProcess(assistant.model), "tiny", Limits(max_body=1 << 20))
    with served(service, root=finished_run) as address:
        yield address


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return files_of_all(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def chromium():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium, address):
    """The page, freshly opened; whatever a test does, it may ask nobody else and break nothing."""
    chromium.requests.clear()
    chromium.problems.clear()
    chromium.open(address)
    chromium.wait("document.querySelectorAll('#examples button').length")
    yield chromium
    chromium.run("1")  # what has been said until now is noted
    own = (address, "data:", f"blob:{address}")
    assert [url for url in chromium.requests if not url.startswith(own)] == []
    assert chromium.problems == []


def text(browser, selector):
    return browser.run(f"document.querySelector({selector!r}).innerText")


def put_in(browser, *files):
    shown = browser.run("document.querySelectorAll('#media > li').length")
    browser.choose("#files", *files)
    browser.wait(f"document.querySelectorAll('#media > li').length === {shown + len(files)}")


def drawn(browser, selector):
    """Return how many colours a canvas shows."""
    uri = browser.run(f"document.querySelector({selector!r}).toDataURL()")
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    return len(np.unique(np.array(picture).reshape(-1, 4), axis=0))


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "tilt"])
def test_a_file_of_each_kind_is_shown_asked_about_and_answered(browser, files, name):
    put_in(browser, files[name])
    assert browser.run("document.querySelector('#media select').value") == name
    if name in ("photo", "film"):
        count = {"photo": 1, "film": 4}[name]  # the moving picture and its frames
        loaded = "[...document.querySelectorAll('.strip img')].filter(i => i.naturalWidth).length"
        browser.wait(f"{loaded} === {count}")
    else:
        browser.wait("document.querySelector('#media canvas').width > 300 || "
                     "document.querySelector('#media canvas').width === 32")  # fmt: skip
        assert drawn(browser, "#media canvas") > (1 if name == "noise" else 3)
    if name == "noise":
        browser.wait("document.querySelector('audio').duration === 0.5")
    browser.run("document.querySelector('#question').focus()")
    browser.write("What is it?")
    browser.press("Enter")
    browser.wait(ANSWERED)
    assert text(browser, "#answer")
    assert text(browser, "#blind-answer")
    assert f"path {name}" in text(browser, "#ways")


@pytest.mark.parametrize(("codec", "kind", "plays"), [("libvpx", "webm", 1), ("mpeg4", "mp4", 0)])
def test_a_film_has_a_player_where_the_browser_plays_it(browser, tmp_path, codec, kind, plays):
    file = tmp_path / f"film.{kind}"
    file.write_bytes(film(12, (64, 48), kind, codec))
    put_in(browser, file)
    count = "document.querySelectorAll('video').length"
    ready = "document.querySelector('video')?.readyState > 0"
    browser.wait(ready if plays else f"{count} === 0")
    assert browser.run(count) == plays
    assert browser.run("document.querySelectorAll('.strip img').length") == 3


def test_choices_get_probabilities_that_sum_to_one(browser, files):
    put_in(browser, files["shape"])
    browser.run("document.querySelector('#choices').value = 'low, high , low,'")
    browser.run("document.querySelector('#form').requestSubmit()")
    browser.wait(ANSWERED)
    cells = "[...document.querySelectorAll('#shares th, #shares td:last-child')]"
    told = browser.run(f"{cells}.map(cell => cell.textContent)")
    shares = [float(share.split()[0]) for share in told[1::2]]
    assert sorted(told[::2]) == ["high", "low"]
    assert sum(shares) == pytest.approx(100, abs=0.11)
    assert shares == sorted(shares, reverse=True)
    mixed = text(browser, "#ways .legend").split("\n")
    assert [line.split()[0] for line in mixed] == ["film", "noise", "range", "shape"]
    assert sum(float(line.split()[1]) for line in mixed) == pytest.approx(100, abs=0.3)


def test_an_example_is_one_click_away_and_paths_and_scores_are_shown(browser):
    browser.run("document.querySelector('#examples button').click()")
    browser.wait(ANSWERED)
    assert text(browser, "#answer")
    assert "The test set says: low" in text(browser, "#truth")
    assert "tilt" in text(browser, "#paths")
    assert text(browser, "#scores").count("after") == 3


def test_what_is_wrong_is_told_in_a_line_and_the_page_goes_on(browser, files, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(files["photo"].read_bytes()[:60])
    browser.choose("#files", broken)
    browser.wait("!document.querySelector('#error').hidden")
    assert text(browser, "#error").startswith("broken.png must be a medium that a path reads")
    browser.problems.clear()  # the browser itself notes the status 400
    put_in(browser, files["photo"])
    assert browser.run("document.querySelector('#error').hidden")
    browser.run("document.querySelector('#ask').click()")
    browser.wait(ANSWERED)
    assert text(browser, "#answer")


def test_what_a_file_is_taken_for_can_be_changed(browser, files):
    put_in(browser, files["range"])
    browser.run(
        "const select = document.querySelector('#media select'); select.value = 'photo'; "
        "select.dispatchEvent(new Event('change'))"
    )
    browser.wait("document.querySelector('.strip img') !== null")
    browser.run("document.querySelector('#ask').click()")
    browser.wait(ANSWERED)
    assert "path photo" in text(browser, "#ways")


def test_the_keyboard_alone_is_enough(browser, files):
    """Files are chosen in a window of the system, all else with tab, enter and arrows."""
    order = []
    for _ in range(20):
        browser.press("Tab")
        order.append(browser.run("document.activeElement.id"))
        if order[-1] == "files":
            put_in(browser, files["shape"])
        if order[-1] == "question":
            browser.write("What is it?")
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert browser.run(outline) != "none"
        if browser.run("document.activeElement.className") == "cloud":
            before = browser.run("document.activeElement.toDataURL()")
            browser.press("ArrowLeft")
            assert browser.run("document.activeElement.toDataURL()") != before
        if order[-1] == "ask":
            browser.press("Enter")
            break
    assert [each for each in order if each] == [
        "theme", "files", "question", "choices", "blind", "ask",
    ]  # fmt: skip
    browser.wait(ANSWERED)
    assert text(browser, "#answer")


def test_a_key_is_asked_for_and_opens_the_page(chromium, tmp_path, finished_run):
    assistant = assistant_of_all(tmp_path)
    service = Service(assistant, InProcess(assistant.model), "tiny")
    with served(service, key="secret", root=finished_run) as address:
        chromium.open(address)
        chromium.wait("!document.querySelector('#error').hidden")
        assert "key of this server" in text(chromium, "#error")
        chromium.wait("document.querySelector('details').open")
        chromium.run("document.querySelector('#key').focus()")
        chromium.write("secret")
        chromium.press("Tab")
        chromium.wait("document.querySelectorAll('#examples button').length")
        assert chromium.run("document.querySelector('#error').hidden")
        chromium.run("document.querySelector('#examples button').click()")
        chromium.wait(ANSWERED)
        assert text(chromium, "#answer")


@pytest.mark.parametrize("width", [360, 768])
def test_a_small_window_scrolls_down_and_never_sideways(browser, files, width):
    browser.size(width, 800, phone=True)
    put_in(browser, *files.values())
    browser.run("document.querySelector('#examples button').click()")
    browser.wait(ANSWERED)
    put_in(browser, *files.values())
    assert browser.run("document.documentElement.scrollWidth") == width
    browser.size(1200, 900)


def test_colours_are_those_of_the_system_or_those_that_are_chosen(browser, address):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = browser.run(ground)
    browser.open(address, scheme="dark")
    dark = browser.run(ground)
    assert light != dark
    seen = []
    for _ in range(3):
        browser.run("document.querySelector('#theme').click()")
        seen.append((text(browser, "#theme"), browser.run(ground)))
    assert seen == [("Theme: light", light), ("Theme: dark", dark), ("Theme: system", dark)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(browser, address, scheme):
    """WCAG 2 asks for a contrast of 4.5 of text this size."""
    browser.open(address, scheme=scheme)
    browser.wait("document.querySelectorAll('#examples button').length")
    for selector, ground in (
        ("body", "body"),
        (".quiet", "body"),
        ("#ask", "#ask"),
        ("#error", "body"),
    ):
        ink = browser.run(f"getComputedStyle(document.querySelector('{selector}')).color")
        under = browser.run(f"getComputedStyle(document.querySelector('{ground}')).backgroundColor")
        lights = sorted(map(luminance, (ink, under)))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5, selector


def luminance(colour):
    channels = [int(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
