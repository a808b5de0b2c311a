"""`support.compose`: what is missing for containers is said, and nothing is left open."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import compose

NOBODY = "unix:///nowhere/docker.sock"
TELL = "from support.compose import missing; print(missing())"


def missing(**variables: str) -> tuple[str, str]:
    """Ask in a process of its own, where whatever is left open is an error; return what it says."""
    tests = Path(compose.__file__).parents[1]
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error::ResourceWarning", "-c", TELL],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tests), **variables},
    )
    return done.stdout, done.stderr


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs docker on PATH, without a daemon")
def test_a_daemon_that_is_not_there_is_said_and_no_socket_stays_open():
    """The command line is there: tests that need containers are skipped, and end without errors."""
    said = "the docker daemon does not answer (start it, or may this user use it?)"
    assert missing(DOCKER_HOST=NOBODY) == (f"needs Docker: {said}\n", "")


def test_a_machine_without_docker_is_told_what_it_lacks():
    """Nothing is tried then."""
    said = "there is no docker on PATH"
    assert missing(PATH="/nowhere") == (f"needs Docker with its compose plugin: {said}\n", "")
