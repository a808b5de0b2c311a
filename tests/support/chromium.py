"""A browser without a driver: the DevTools protocol by hand, for what drivers pretend away.

Playwright says of every page that it is visible. Here a page is hidden where another tab lies
before it, as for a person.
"""

import itertools
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from support.waiting import until

_SECONDS = 20
FLAGS = (
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--remote-debugging-port=0",
    ),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)


class Tab:
    """One tab of the browser."""

    def __init__(self, browser: "Browser", target: str) -> None:
        self._browser = browser
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]

    def call(self, method: str, **parameters: object) -> Any:
        """Call a method of the protocol in the tab."""
        return self._browser.call(method, self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, which runs as if a person had clicked."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            userGesture=True,
            awaitPromise=True,
            returnByValue=True,
        )
        return answer["result"].get("value")


class Browser:
    """The whole browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)

    def call(self, method: str, session: str | None = None, **parameters: object) -> Any:
        """Call a method of the protocol, and return its result."""
        number = next(self._ids)
        of = {"sessionId": session} if session else {}
        command = {"id": number, "method": method, "params": parameters, **of}
        self._connection.send(json.dumps(command))
        while True:
            answer = json.loads(self._connection.recv(_SECONDS))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str = "about:blank") -> Tab:
        """Open a tab, before all others."""
        return Tab(self, self.call("Target.createTarget", url=url)["targetId"])


@contextmanager
def browser(program: str, profile: Path, sound: str) -> Iterator[Browser]:
    """Run a browser with a recording as its microphone."""
    file = f"--use-file-for-fake-audio-capture={sound}%noloop"
    told = profile / "DevToolsActivePort"
    with subprocess.Popen(  # noqa: S603 - the system's browser
        [program, *FLAGS, file, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            port, path = until(
                lambda: told.read_text().split(),
                lambda lines: len(lines) == 2,
                seconds=_SECONDS,
                despite=(FileNotFoundError,),
            )
            with connect(f"ws://127.0.0.1:{port}{path}", max_size=None) as connection:
                yield Browser(connection)
        finally:
            process.terminate()
