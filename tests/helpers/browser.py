"""Headless Chromium, driven by its own protocol over two pipes: no driver and no package is needed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""Commands of browsers that speak the protocol."""

REQUIRED = "JAXCLUSTER_REQUIRES_BROWSER"
"""Variable that makes a missing browser a failure: where it is set, no test may skip unseen."""

PATIENCE_S = 60
"""Seconds after which a browser that does not answer fails the test."""

FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


class Browser:
    """A window of a browser; ``faults`` are the errors of its pages."""

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._from = to, answers
        self._number, self._left, self._session = 0, b"", None
        self.faults: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command of the protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
        while b"\0" not in self._left:
            ready = select.select([self._from], [], [], max(0.0, end - time.monotonic()))[0]
            part = os.read(self._from, 1 << 20) if ready else b""
            assert part, "the browser does not answer"
            self._left += part
        text, _, self._left = self._left.partition(b"\0")
        message = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, event: dict[str, Any]) -> None:
        """Keep errors, and requests for anything but the page itself."""
        if method == "Runtime.exceptionThrown":
            self.faults.append(str(event["exceptionDetails"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            self.faults.append(event["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning", "assert"):
            self.faults.append(str(event["args"]))
        elif method == "Network.requestWillBeSent":
            url = event["request"]["url"]
            if not url.startswith(("file:", "data:", "about:", "blob:")):
                self.faults.append(f"asked for {url}")

    def open(
        self, page: Path, *, width: int = 1200, height: int = 900, dark: bool = False, print_: bool = False
    ) -> None:
        """Show a page in a window of this size, to a reader who prefers dark pages, or on paper."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media="print" if print_ else "", features=features)
        self.call("Page.navigate", url=page.as_uri())
        while self.run("return document.readyState + location.href") != f"complete{page.as_uri()}":
            pass
        self.run("")

    def run(self, script: str) -> Any:
        """Run the body of an asynchronous function once the page is drawn, and return its result."""
        body = f"(async () => {{ const find = (name) => document.querySelector(name); await {FRAMES}; {script} }})()"
        answer = self.call("Runtime.evaluate", expression=body, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def mouse(self, kind: str, x: float, y: float, *, shift: bool = False, **more: Any) -> None:
        """Move, press or release the mouse, or turn its wheel, at a place of the window."""
        button = {} if kind in ("Moved", "Wheel") else {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, modifiers=8 * shift, **button, **more)

    def key(self, key: str, code: str = "", text: str = "") -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            written = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, **written)

    def picture(self, path: Path, *, height: int | None = None) -> None:
        """Write a picture of the whole page, or of its upper part."""
        width, whole = self.run("return [innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height or whole, "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with an empty profile in a folder; without one the test skips, or fails where `REQUIRED` is set."""
    command = next(filter(None, map(shutil.which, NAMES)), None)
    if command is None:
        message = f"no browser is installed: one of {', '.join(NAMES)} draws the page"
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(message)
    own, to = os.pipe()
    answers, theirs = os.pipe()
    # The protocol is spoken on descriptors 3 and 4. Copies far above them do not overwrite each other there.
    far = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in (own, theirs)]
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars"]
    options += ["--disable-extensions", "--no-first-run", f"--user-data-dir={folder}", "--disable-dev-shm-usage"]
    actions = [(os.POSIX_SPAWN_OPEN, each, os.devnull, os.O_WRONLY, 0) for each in (1, 2)]
    actions += [(os.POSIX_SPAWN_DUP2, each, place) for each, place in zip(far, (3, 4), strict=True)]
    # Not a fork: the process has the threads of JAX.
    process = os.posix_spawn(command, [command, *options], os.environ, file_actions=actions)
    for each in (own, theirs, *far):
        os.close(each)
    try:
        yield Browser(to, answers)
    finally:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)
        os.close(to)
        os.close(answers)
