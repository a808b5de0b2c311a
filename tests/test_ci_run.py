"""`.ci/run`: it prepares the machine of continuous integration, and no other."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "run"
SAY = '#!/bin/sh\necho "$(basename "$0") $*"\n'
PREPARED = ["== Docker and its images: {infra}", "docker-up ", "images "]


def executable(path: Path) -> None:
    """Write a program that says how it was called."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SAY)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout beside the folder of such a machine, with nothing missing on the PATH."""
    for program in ("docker-up", "images"):
        executable(tmp_path / "shared" / "infra" / program)
        executable(tmp_path / "elsewhere" / program)
    for program in ("chromium", "strace"):
        executable(tmp_path / "bin" / program)
    root = tmp_path / "checkout"
    executable(root / "scripts" / "test")
    (root / ".ci").mkdir()
    shutil.copy2(SCRIPT, root / ".ci" / "run")
    return root


@pytest.mark.parametrize(
    ("variables", "infra"),
    [
        ({}, None),
        ({"CI": "true"}, "../shared/infra"),
        ({"CI": "true", "CI_INFRA": "../elsewhere"}, "../elsewhere"),
        ({"CI": "true", "CI_INFRA": ""}, None),
        ({"CI": "true", "CI_INFRA": "../nowhere"}, None),
    ],
    ids=["a developer's", "CI", "another folder", "none", "not there"],
)
def test_only_what_is_asked_for_is_done_to_the_machine(checkout, variables, infra):
    """Then everything is tested, with the arguments."""
    inherited = {k: v for k, v in os.environ.items() if k not in {"CI", "CI_INFRA"}}
    path = f"{checkout.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(  # noqa: S603 - a script of ours
        [checkout / ".ci" / "run", "--only", "quick"],
        check=True,
        capture_output=True,
        text=True,
        env=inherited | variables | {"PATH": path},
    )
    before = [line.format(infra=infra) for line in PREPARED] if infra else []
    assert (done.stdout.splitlines(), done.stderr) == ([*before, "test --only quick"], "")
