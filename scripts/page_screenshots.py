"""Pictures of the web page with each modality of a run: ``docs/page``.

    pathweave serve RUN --port 8000 &
    python -m scripts.page_screenshots http://127.0.0.1:8000 --out docs/page

Asks the first example of each modality, and takes the whole of it in light colours, one of them in
dark ones and one as on a phone, and the tables. Needs Chromium.
"""

import argparse
import json
import time
from pathlib import Path
from urllib.request import urlopen

from scripts.browser import Browser

WIDTH, PHONE = 1200, 390
ANSWERED = "!document.querySelector('#answers').hidden && document.querySelector('#stop').hidden"


def shoot(browser: Browser, modality: str, file: Path, parts: str, width: int, scheme: str) -> None:
    """Ask the first example of a modality and write a picture of parts of the page."""
    is_phone = width == PHONE
    browser.open(ADDRESS, width, 900, scheme, phone=is_phone)
    button = f"document.querySelector('#examples [aria-label^=\"{modality}: \"]')"
    browser.wait(f"{button} !== null")
    browser.run(f"{button}.click()")
    browser.wait(ANSWERED, seconds=300)
    # The window is as high as the page, so that all of it is drawn.
    browser.size(width, browser.run("document.documentElement.scrollHeight"), phone=is_phone)
    time.sleep(0.5)
    browser.run("scrollTo(0, 0)")
    boxes = f"[...document.querySelectorAll('{parts}')].map(e => e.getBoundingClientRect())"
    low, high = browser.run(f"[{boxes}.map(b => b.top), {boxes}.map(b => b.bottom)]")
    top = max(0, min(low) - 8)
    clip = {"x": 0, "y": top, "width": width, "height": max(high) + 16 - top, "scale": 1}
    browser.screenshot(file, clip=clip)


def main() -> None:
    """Write all pictures."""
    with urlopen(f"{ADDRESS}/page/examples") as response:
        modalities = list(dict.fromkeys(one["modality"] for one in json.load(response)))
    OUT.mkdir(parents=True, exist_ok=True)
    answer = "header, #answers, #ways-box:not([hidden]), #shares-box:not([hidden])"
    browser = Browser()
    try:
        for place, modality in enumerate(modalities):
            scheme = "dark" if place == 3 else "light"
            shoot(browser, modality, OUT / f"{modality}.webp", answer, WIDTH, scheme)
        shoot(browser, modalities[-2], OUT / "phone.webp", answer, PHONE, "light")
        shoot(browser, modalities[0], OUT / "scores.webp", ".wide", WIDTH, "light")
    finally:
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--out", type=Path, default=Path("docs/page"))
    given = parser.parse_args()
    ADDRESS, OUT = given.address, given.out
    main()
