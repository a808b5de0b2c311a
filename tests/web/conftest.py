"""The browser's page before a whole pipeline, and a real browser before the page."""

import base64
import json
import shutil
import subprocess
import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from speech_tools import stack
from support.web_page import BROWSER, BROWSERS, CLIENT

HERE = Path(__file__).parent
NPM_SECONDS, BROWSER_SECONDS = 240, 200

Steps = list[tuple[str, object]]


@dataclass(frozen=True)
class Seen:
    """What a browser found in the end; `made` is all PCM that its worklet gave."""

    found: dict[str, Any]
    made: bytes

    def __getattr__(self, name: str) -> Any:
        return self.found[name]


@pytest.fixture(scope="session")
def packages() -> Path:
    """Return the folder of the client, with what its tests need from npm."""
    if BROWSER is None or shutil.which("npm") is None:
        pytest.skip(f"needs Node 20 or newer, and one of {', '.join(BROWSERS)} on the PATH")
    if not (CLIENT / "node_modules" / "playwright-core").is_dir():
        command = ["npm", "ci", "--ignore-scripts", "--no-fund", "--no-audit"]
        subprocess.run(command, cwd=CLIENT, check=True, timeout=NPM_SECONDS, capture_output=True)  # noqa: S603
    return CLIENT


Browse = Callable[..., Seen]


@pytest.fixture
def browse(packages: Path) -> Browse:
    """Return what lets a browser take steps, and tells what it found; `on` is called at a `say`."""

    def take(
        url: str, steps: Steps, *, on: Callable[[], None] = lambda: None, **more: object
    ) -> Seen:
        scenario = {"url": url, "steps": steps, "packages": str(packages), "browser": BROWSER}
        with subprocess.Popen(  # noqa: S603 - our own script
            ["node", str(HERE / "browser.mjs")],  # noqa: S607
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as node:
            timer = threading.Timer(BROWSER_SECONDS, node.kill)
            timer.start()
            try:
                return _followed(node, {**scenario, **more}, on)
            finally:
                timer.cancel()
                node.kill()

    return take


def _followed(node: "subprocess.Popen[str]", scenario: object, on: Callable[[], None]) -> Seen:
    assert node.stdin
    assert node.stdout
    assert node.stderr
    node.stdin.write(json.dumps(scenario))
    node.stdin.close()
    for line in node.stdout:
        told = json.loads(line)
        if "reached" not in told:
            return Seen(told, base64.b64decode(told["made"]))
        on()
    raise AssertionError(node.stderr.read()[-2000:])


Start = Callable[..., AbstractContextManager[stack.Gateway]]


@pytest.fixture
def start(pipeline, topics, logs) -> Start:
    """Return what starts a gateway that sends texts, with further settings."""

    def gateway(**settings: str) -> AbstractContextManager[stack.Gateway]:
        return stack.gateway(pipeline, logs, {**topics.names, "RESULTS": "on", **settings})

    return gateway


@pytest.fixture(scope="module")
def recogniser(pipeline, topics, logs, tiny_en) -> Iterator[None]:
    """Run a recogniser with the default engine."""
    engine = {"ASR_ENGINE": "whisper", "ASR_MODEL": str(tiny_en)}
    with stack.recogniser(pipeline, logs, {**topics.names, **engine}):
        yield


@pytest.fixture
def sound(tmp_path: Path) -> Callable[[bytes], str]:
    """Return what writes PCM as the WAV file that a browser takes for its microphone."""

    def write(pcm: bytes) -> str:
        path = tmp_path / "sound.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(pcm)
        return str(path)

    return write
