"""Chromium without a window, driven through the pipe of its DevTools protocol (https://chromedevtools.github.io/devtools-protocol)."""

import fcntl
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
LIMIT_S = 120.0


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page. Messages of the protocol end with a zero byte."""

    def __init__(self, requests: Any, answers: Any) -> None:
        self._requests, self._answers = requests, answers
        self._numbers = itertools.count(1)
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._requests.write(json.dumps(message).encode() + b"\0")
        self._requests.flush()
        while True:  # events come in between
            answer = json.loads(self._next_message())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next_message(self) -> bytes:
        content = b""
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            content += byte
        return content

    def value_of(self, expression: str) -> Any:
        """Of an expression in JavaScript."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not self.value_of(expression):
            assert time.monotonic() < deadline, f"{expression}; the page: {self.value_of('document.body.innerText')}"
            time.sleep(0.1)

    def choose_files(self, selector: str, *paths: Path) -> None:
        """As a user does in the dialog of an input of files."""
        document = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def type_text(self, selector: str, text: str) -> None:
        self.value_of(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def press_enter(self) -> None:
        for kind in ("keyDown", "keyUp"):
            key = {
                "key": "Enter",
                "code": "Enter",
                "windowsVirtualKeyCode": 13,
                "text": "\r" if kind == "keyDown" else "",
            }
            self.call("Input.dispatchKeyEvent", type=kind, **key)


@contextmanager
def opened(url: str, profile_dir: Path) -> Iterator[Page]:
    """The page at an address, which has loaded."""
    command = chromium()
    assert command
    read_requests, write_requests = os.pipe()
    read_answers, write_answers = os.pipe()
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
    ]
    words = [command, *options, f"--user-data-dir={profile_dir}", "--window-size=1200,900", "--remote-debugging-pipe"]

    def take_their_numbers() -> None:
        """Chromium reads from 3 and writes to 4, whatever these are here."""
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 5) for end in (read_requests, write_answers)]
        os.dup2(ends[0], 3)
        os.dup2(ends[1], 4)

    process = subprocess.Popen(
        words, pass_fds=(3, 4), preexec_fn=take_their_numbers, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(read_requests)
    os.close(write_answers)
    try:
        with open(write_requests, "wb") as requests, open(read_answers, "rb", buffering=2**16) as answers:
            page = Page(requests, answers)
            page.call("Page.navigate", url=url)
            page.wait_for("document.readyState == 'complete'")
            yield page
    finally:
        process.terminate()
        process.wait()
