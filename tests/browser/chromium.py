"""A headless Chromium, told what to do over the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.request import Request, urlopen

from websockets.sync.client import connect

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
START_S = 60
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
)


class Chromium:
    """One page of one browser, with a profile of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self.troubles: list[str] = []
        """What the browser complained of: exceptions, errors on the console, refused loads."""

    def __enter__(self) -> Self:
        """Start it."""
        command = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={self._folder}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ready, end = self._folder / "DevToolsActivePort", time.monotonic() + START_S
        while not (ready.exists() and len(ready.read_text().splitlines()) == 2):
            assert time.monotonic() < end, "Chromium does not start"
            time.sleep(0.1)
        port = ready.read_text().splitlines()[0]
        with urlopen(Request(f"http://127.0.0.1:{port}/json/new", method="PUT"), timeout=START_S) as answer:
            self._socket = connect(json.load(answer)["webSocketDebuggerUrl"], max_size=None, open_timeout=START_S)
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)

    def _call(self, method: str, **parameters: Any) -> Any:  # noqa: ANN401 - any JSON
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._socket.recv(timeout=START_S))
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]
            if told["method"] in {"Runtime.exceptionThrown", "Log.entryAdded"}:
                self.troubles.append(json.dumps(told["params"]))

    def show(self, url: str, *, width: int, height: int, dark: bool, phone: bool) -> None:
        """Open a page on a screen of that size (CSS pixels)."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self._call("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=url)

    def ask(self, expression: str) -> Any:  # noqa: ANN401 - any JSON
        """The value of a JavaScript expression."""
        told = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until the expression is true."""
        end = time.monotonic() + START_S
        while not self.ask(expression):
            assert time.monotonic() < end, (expression, self.ask("document.body.innerText"), self.troubles)
            time.sleep(0.1)

    def shoot(self, path: Path) -> None:
        """A picture of the whole page, PNG."""
        told = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(told["data"]))
