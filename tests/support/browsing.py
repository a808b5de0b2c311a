"""A real browser before the client's page. For tests/web, and for the edge's page in tests/e2e."""

import base64
import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.web_page import BROWSER, BROWSERS, CLIENT

DRIVER = Path(__file__).parents[1] / "web" / "browser.mjs"
NPM_SECONDS, BROWSER_SECONDS = 240, 200

Steps = list[tuple[str, object]]


@dataclass(frozen=True)
class Seen:
    """What a browser found in the end; `made` is all PCM that its worklet gave."""

    found: dict[str, Any]
    made: bytes

    def __getattr__(self, name: str) -> Any:
        return self.found[name]


def packages() -> Path:
    """Return the folder of the client, with what its tests need from npm; skip without Node."""
    if BROWSER is None or shutil.which("npm") is None:
        pytest.skip(f"needs Node 20 or newer, and one of {', '.join(BROWSERS)} on the PATH")
    if not all((CLIENT / "node_modules" / each).is_dir() for each in ("playwright-core", "vite")):
        command = ["npm", "ci", "--ignore-scripts", "--no-fund", "--no-audit"]
        subprocess.run(command, cwd=CLIENT, check=True, timeout=NPM_SECONDS, capture_output=True)  # noqa: S603
    return CLIENT


def browse(
    url: str, steps: Steps, *, on: Callable[[], None] = lambda: None, **more: object
) -> Seen:
    """Let a browser take steps (`browser.mjs` has them), and tell what it found.

    Args:
        url: Of the page's origin.
        steps: Each with its argument.
        on: Called at a step `say`.
        more: What else the scenario has: `sound`, `denied`, `width`, `dark`, `still`.
    """
    scenario = {"url": url, "steps": steps, "packages": str(packages()), "browser": BROWSER}
    with subprocess.Popen(  # noqa: S603 - our own script
        ["node", str(DRIVER)],  # noqa: S607
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
