"""What a worker's libraries print is told by our own log, and never with what people say."""

import asyncio
import os

from speech_asr.native_log import NativeLog
from structlog.testing import capture_logs


def told(*steps):
    """Return the log lines of a NativeLog that lives through these steps."""

    async def scenario():
        native = NativeLog()
        end = os.dup(native.writer.fileno())  # as the worker's own
        native.started()
        for step in steps:
            step(native, end)
            await asyncio.sleep(0)  # one turn of the loop
        os.close(end)
        native.close()

    with capture_logs() as lines:
        asyncio.run(scenario())
    return [{key: line[key] for key in ("event", "line") if key in line} for line in lines]


def prints(text):
    return lambda _, end: os.write(end, text)


def loaded(native, _):
    native.loaded = True


def test_what_is_printed_while_loading_is_told_line_by_line():
    """A library that ends the process says there why."""
    assert told(prints(b"csrc/x.cc:17\n\n  no 'n_mels'\n"), prints(b"\xffgoodbye")) == [
        {"event": "engine_message", "line": "csrc/x.cc:17"},
        {"event": "engine_message", "line": "no 'n_mels'"},
        {"event": "engine_message", "line": "\ufffdgoodbye"},
    ]


def test_of_what_is_printed_later_only_that_it_was_is_told():
    """By then it has heard people."""
    assert told(loaded, prints(b"they said hello\n")) == [{"event": "engine_message"}]


def test_a_flood_is_bounded():
    """Twenty lines say what there is to say, and none is long."""
    lines = told(prints(b"x" * 1000 + b"\n" + b"y\n" * 1000))
    assert len(lines) == 20
    assert lines[0]["line"] == "x" * 300


def test_the_last_words_of_the_dead_are_read():
    """They are in the pipe when the loop has no turn left for them."""

    async def scenario():
        native = NativeLog()
        end = os.dup(native.writer.fileno())
        native.started()
        os.write(end, b"fatal\n")
        os.close(end)
        native.close()

    with capture_logs() as lines:
        asyncio.run(scenario())
    assert [line["line"] for line in lines] == ["fatal"]


def test_a_worker_that_was_never_started_owes_nothing():
    """Where the machine has no process left, both ends are closed all the same."""

    async def scenario():
        native = NativeLog()
        native.close()
        return native

    native = asyncio.run(scenario())
    assert native.writer.closed
