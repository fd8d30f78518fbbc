"""A page in headless Chromium, driven over its debugging pipe: what it logs, what it asks the network for, what script sees.

The DevTools protocol is JSON ended by zero bytes; Chromium reads it from file descriptor 3 and answers on 4.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage", "--remote-debugging-pipe")


class Tab:
    """One page.

    Attributes
    ----------
    faults : list of str
        Errors and warnings on the console, exceptions, requests that the content security policy refused.
    requests : list of str
        Addresses that were asked for.
    """

    def __init__(self, write: int, read: int) -> None:
        self.write, self.read, self.number, self.session = write, read, 0, ""
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.rest = b""
        self.loaded = False

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer of the browser; what happens meanwhile is taken down."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        os.write(self.write, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            piece = os.read(self.read, 1 << 20)
            assert piece, "the browser ended"
            self.rest += piece
        first, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(first)
        self._note(message.get("method", ""), message.get("params", {}))
        return dict(message)

    def _note(self, method: str, about: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.faults.append(about["exceptionDetails"]["text"])
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.faults.append(about["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.faults.append(str(about["args"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loaded = True

    def open(self, path: Path, width: int = 1200, script: bool = True) -> None:
        """Load a file, as on a screen of so many pixels."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self.send("Emulation.setScriptExecutionDisabled", value=not script)
        self.faults.clear()
        self.requests.clear()
        self.loaded = False
        self.send("Page.navigate", url=path.as_uri())
        while not self.loaded:
            self._next()

    def ask(self, expression: str) -> Any:
        """Value of an expression."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        code = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowDown": 40}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A tab of a browser that ends with the block."""
    theirs, write = os.pipe()
    read, answers = os.pipe()

    def give() -> None:
        # Chromium looks for its pipe at these two.
        os.dup2(theirs, 13)
        os.dup2(answers, 14)
        os.dup2(13, 3)
        os.dup2(14, 4)

    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, preexec_fn=give, close_fds=False, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    os.close(theirs)
    os.close(answers)
    try:
        tab = Tab(write, read)
        target = tab.send("Target.createTarget", url="about:blank")["targetId"]
        tab.session = tab.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.send(f"{domain}.enable")
        yield tab
    finally:
        process.terminate()
        process.wait(20)
        os.close(write)
        os.close(read)


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found
