"""Chromium without a window, driven over its DevTools protocol."""

# ruff: noqa: ANN401 (values of JavaScript)

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}


class Browser:
    """A page in a browser; what it asks for, and what goes wrong in it, is written down.

    Attributes:
        requests: Addresses that the page asked for.
        problems: What the browser said that is no plain message: errors, refusals, warnings.
    """

    def __init__(self) -> None:
        self.open_things = ExitStack()
        self.home = self.open_things.enter_context(
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        )
        self.process = subprocess.Popen(
            [
                *(str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio"),
                *("--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"),
                *("--remote-debugging-port=0", f"--user-data-dir={self.home}", "about:blank"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port, way = self._port().split()
            address = f"ws://127.0.0.1:{port}{way}"
            self.socket = self.open_things.enter_context(
                connect(address, max_size=None, proxy=None)
            )
            self.requests: list[str] = []
            self.problems: list[str] = []
            self.numbers = itertools.count(1)
            self.session: str | None = None
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def _port(self) -> str:
        file = Path(self.home) / "DevToolsActivePort"
        for _ in range(600):
            if file.exists() and len(lines := file.read_text(encoding="utf-8").split("\n")) > 1:
                return " ".join(lines)
            assert self.process.poll() is None, "Chromium has ended"
            time.sleep(0.05)
        raise TimeoutError("Chromium must open a port within 30 s")

    def close(self) -> None:
        """End the browser."""
        self.process.kill()
        self.process.wait()
        self.open_things.close()

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and return its result."""
        number = next(self.numbers)
        session = {"sessionId": self.session} if self.session else {}
        message = {"id": number, "method": method, "params": parameters, **session}
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer.get("method"), answer.get("params", {}))

    def _note(self, event: str | None, about: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(about["exceptionDetails"])[:500])
        elif event == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        elif event == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.problems.append(json.dumps(about["args"])[:500])

    def run(self, code: str) -> Any:
        """Return what an expression of JavaScript comes to; a promise is awaited."""
        made = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in made, made["exceptionDetails"]
        return made["result"].get("value")

    def wait(self, code: str, seconds: float = 30) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(code)):
            assert time.monotonic() < end, f"{code} must come true within {seconds} s: " + str(
                self.run("document.body.innerText")
            )
            time.sleep(0.05)
        return value

    def open(
        self,
        url: str,
        width: int = 1200,
        height: int = 900,
        scheme: str = "light",
        phone: bool = False,
    ) -> None:
        """Show a page in a window of a size, in light or dark colours."""
        self.size(width, height, phone)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def size(self, width: int, height: int, phone: bool = False) -> None:
        """Give the window a size, in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=phone,
        )  # fmt: skip

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def press(self, key: str, shift: bool = False) -> None:
        """Press a key."""
        text = {"Enter": "\r", " ": " "}.get(key)
        about = {
            "key": key,
            "code": key,
            "windowsVirtualKeyCode": KEYS[key],
            "modifiers": 8 * shift,
        }
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {})
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def write(self, text: str) -> None:
        """Write a text where the focus is."""
        self.call("Input.insertText", text=text)

    def screenshot(self, file: Path, quality: int = 80, **clip: Any) -> None:
        """Write a picture of the window as WebP."""
        made = self.call("Page.captureScreenshot", format="webp", quality=quality, **clip)
        Path(file).write_bytes(base64.b64decode(made["data"]))
