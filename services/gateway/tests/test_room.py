"""What grows with `MAX_CONNECTIONS`, and what is said where it cannot."""

import os
import subprocess
import sys

import pytest
from speech_gateway import room
from speech_lib.kafka.settings import MAX_RECORD_BYTES

LARGEST = 1_572_864


@pytest.mark.parametrize(
    ("connections", "expected"), [(1, 32 << 20), (10, 32 << 20), (1_000, 1_576_960_000)]
)
def test_the_queue_has_room_for_every_client(connections, expected):
    """For the largest utterance of each, and never less than before."""
    assert room.queue_bytes(connections, LARGEST) == expected


def test_the_records_of_all_clients_fit():
    """What an event has beside its audio is small; the broker takes larger records than these."""
    assert LARGEST + 4_096 < MAX_RECORD_BYTES


def test_the_memory_of_the_worst_case_grows_with_the_clients():
    """Ten fit into the 256 MiB of compose; a thousand do not."""
    assert room.worst_case_bytes(10, LARGEST) < 256 * room.MIB
    assert round(room.worst_case_bytes(1_000, LARGEST) / room.MIB) == 3_650


@pytest.mark.parametrize(
    ("texts", "limit"),
    [
        (["268435456\n"], 268435456),
        (["max\n"], None),
        ([None, "536870912\n"], 536870912),
        ([None, "9223372036854771712\n"], None),
        ([None, None], None),
    ],
    ids=["v2", "v2 without", "v1", "v1 without", "no control groups"],
)
def test_the_memory_of_the_container_is_found(tmp_path, texts, limit):
    """Control groups of both versions; without a limit there is none."""
    files = tuple(tmp_path / str(number) for number in range(len(texts)))
    for file, text in zip(files, texts, strict=True):
        if text is not None:
            file.write_text(text)
    assert room.memory_limit(files) == limit


OPENS = """
import resource
from speech_gateway import room
room.open_files_for({})
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def opened(connections: int, limits: str) -> "subprocess.CompletedProcess[str]":
    """Make room for clients in a process that a shell has limited."""
    script = f'{limits}; exec "$0" -c "$1"'
    return subprocess.run(  # noqa: S603
        ["/bin/sh", "-c", script, sys.executable, OPENS.format(connections)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ,
    )


def test_files_are_opened_for_every_client():
    """As many as the hard limit allows; where the soft one suffices it stays."""
    assert opened(1_000, "ulimit -Hn 4096; ulimit -Sn 512").stdout == "1256\n"
    assert opened(10, "ulimit -Hn 4096; ulimit -Sn 512").stdout == "512\n"


def test_too_few_files_are_a_wrong_setting():
    """One line says how many clients there can be, and what so many would need."""
    done = opened(1_000, "ulimit -n 512")
    *_, last = done.stderr.splitlines()
    assert last.endswith(
        "MAX_CONNECTIONS: expected at most 256, as this process may open 512 files (nofile);"
        " or let it open 1256"
    )
