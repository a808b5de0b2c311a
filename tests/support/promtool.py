"""Run `promtool`, Prometheus' own checker: the one on PATH, or that of the image.

Used by the tests of the metrics pages, the alert rules and the dashboard.
"""

import os
import shutil
import subprocess
from pathlib import Path

from support.compose import ROOT, image

RUN_SECONDS = 300
"""The image may have to be fetched."""


def run(
    *arguments: str, stdin: str = "", folder: Path = ROOT
) -> "subprocess.CompletedProcess[str]":
    """Run promtool in `folder`, which it may read and not write."""
    found = shutil.which("promtool")
    return subprocess.run(  # noqa: S603 - commands of our own tests
        [found, *arguments] if found else [*_in_a_container(folder), *arguments],
        check=False,
        capture_output=True,
        text=True,
        input=stdin,
        cwd=folder,
        timeout=RUN_SECONDS,
    )


def _in_a_container(folder: Path) -> list[str]:
    return [
        *("docker", "run", "--rm", "-i", "--network", "none", "--cap-drop", "ALL"),
        *("--user", f"{os.getuid()}:{os.getgid()}"),  # whose files they are
        *("--volume", f"{folder}:/checked:ro", "--workdir", "/checked"),
        *("--entrypoint", "promtool", image("prometheus")),
    ]
