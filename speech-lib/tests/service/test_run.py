"""The life of a service's process, from its environment to its exit code."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from speech_lib.service.run import fastest_event_loop

pytestmark = pytest.mark.pipeline

ENVIRON = {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", "SCHEMA_REGISTRY_URL": "http://registry:8081"}
PROGRAM = """
import asyncio, sys
from speech_lib import errors
from speech_lib.service import startup
from speech_lib.service.config import ServiceSettings
from speech_lib.service.logs import get_logger
from speech_lib.service.run import run

log = get_logger("speech_example")

async def main(settings, signals):
    log.info("listening", ops_port=settings.ops_port)
    {body}

sys.exit(run(ServiceSettings, main, "example"))
"""
DRAIN = """
    await signals.drain.wait()
    log.info("draining", now=signals.now.is_set())
    await signals.now.wait()
    log.info("stopped")
"""


@contextmanager
def service(body: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a service whose work is `body`."""
    process = subprocess.Popen(  # noqa: S603 - a program of this file
        [sys.executable, "-c", PROGRAM.format(body=body.strip())],
        env={**os.environ, **ENVIRON, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def outcome(body: str, **variables: str) -> tuple[int, list[dict[str, object]], str]:
    """Run a service to its end; return exit code, log lines and stderr."""
    with service(body, **variables) as process:
        output, errors = process.communicate(timeout=20)
    return process.returncode, [json.loads(line) for line in output.splitlines()], errors


def next_event(process: "subprocess.Popen[str]") -> dict[str, object]:
    """Read the next log line."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def test_service_that_returns_has_drained() -> None:
    """Exit code 0, its log on stdout, nothing on stderr."""
    code, lines, errors = outcome("return", OPS_PORT="0")
    assert (code, errors) == (0, "")
    assert [(line["event"], line["ops_port"], line["service"]) for line in lines] == [
        ("listening", 0, "example")
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_drains_and_second_ends_now(number: signal.Signals) -> None:
    """The service decides what that means; the process ends with 0."""
    with service(DRAIN) as process:
        events = [next_event(process)["event"]]
        process.send_signal(number)
        draining = next_event(process)
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    assert (events, draining["event"], draining["now"]) == (["listening"], "draining", False)
    assert (process.returncode, json.loads(output)["event"], errors) == (0, "stopped", "")


def test_signal_during_start_up_ends_with_0() -> None:
    """A service that is stopped while it waits for the broker has nothing to drain."""
    body = """
    def attempt():
        raise errors.BrokerUnavailable("_TRANSPORT")
    await startup.wait_for(
        "broker", attempt, retry_on=errors.BrokerUnavailable, log=log, stop=signals.drain
    )
"""
    with service(body) as process:
        events = [next_event(process)["event"], next_event(process)["event"]]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, events, errors) == (0, ["listening", "waiting"], "")


@pytest.mark.parametrize(
    ("body", "variables", "code", "line"),
    [
        (
            "return",
            {"OPS_PORT": "70000"},
            2,
            "OPS_PORT: expected a whole number from 0 to 65535, got 70000",
        ),
        ("raise errors.ConfigError('ASR_MODEL: no model')", {}, 2, "ASR_MODEL: no model"),
        ("raise errors.SchemaRefused('not compatible')", {}, 3, "not compatible"),
        ("raise errors.SchemaNotFound('not known')", {}, 3, "not known"),
        (
            "raise errors.TopicMissing('t', 'TOPIC_AUTHORIZATION_FAILED')",
            {},
            3,
            "topic t cannot be used: TOPIC_AUTHORIZATION_FAILED",
        ),
    ],
)
def test_what_waiting_does_not_change_is_one_line(
    body: str, variables: dict[str, str], code: int, line: str
) -> None:
    """On stderr, for whoever started it, with an exit code of its own."""
    ended, _, errors = outcome(body, **variables)
    assert (ended, errors) == (code, f"example: {line}\n")


def test_defect_is_a_log_line_without_traceback() -> None:
    """Exit code 1; the text of the exception is nowhere."""
    code, lines, errors = outcome("raise RuntimeError('what somebody said')")
    assert (code, errors) == (1, "")
    crashed = lines[-1]
    assert (crashed["event"], crashed["level"], crashed["error"]) == (
        "crashed",
        "error",
        "RuntimeError",
    )
    assert "said" not in str(lines)


def test_task_that_nobody_awaits_is_a_log_line() -> None:
    """Its exception is found by the loop, and told by type and place."""
    body = """
    async def fail():
        raise RuntimeError("what somebody said")
    asyncio.get_running_loop().create_task(fail())
    await asyncio.sleep(0)
"""
    code, lines, errors = outcome(body)
    assert (code, errors) == (0, "")
    assert [line.get("error") for line in lines] == [None, "RuntimeError"]
    assert "said" not in str(lines)


def test_the_loop_is_uvloops_where_there_is_one() -> None:
    """It serves live speech for less."""
    loop = fastest_event_loop()
    loop.close()
    assert type(loop).__module__.startswith("uvloop")


def test_without_uvloop_the_loop_is_asyncios(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = fastest_event_loop()
    loop.close()
    assert type(loop).__module__.startswith("asyncio")
