"""Hold a deployment to the protocol by `speech conformance`, as whoever runs one does."""

import json
import os
import subprocess
import sys
from typing import Any

RUN_SECONDS = 180


def held(url: str, *options: str, **env: str) -> dict[str, dict[str, Any]]:
    """Run the command in a process of its own; return what it says of each check.

    Raises:
        AssertionError: A check failed; the text has the frames.
    """
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "speech_tools", "conformance", url, "--json", *options],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | env,
        timeout=RUN_SECONDS,
    )
    assert done.returncode in {0, 1}, done.stderr
    checks = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
    failed = [each for each in checks.values() if each["verdict"] == "failed"]
    assert not failed, json.dumps(failed, indent=2)
    return checks


def passed(checks: dict[str, dict[str, Any]]) -> set[str]:
    """Return the names of the checks that passed."""
    return {name for name, each in checks.items() if each["verdict"] == "passed"}
