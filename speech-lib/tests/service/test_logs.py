"""Log lines: their form, and all that must not be in them."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from speech_lib.service import logs
from speech_lib.service.config import KafkaEnvironment

SECRET = "what somebody said"  # noqa: S105 - stands for any text that must not be logged


@pytest.fixture
def configure(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., None]]:
    """Configure logs as a service does; everything is put back afterwards."""
    root = logging.getLogger()
    kept = root.handlers, root.level, logging.raiseExceptions
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    root.handlers = []

    def apply(**variables: str) -> None:
        environ = {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", **variables}
        logs.configure(KafkaEnvironment.load(environ), "example")

    yield apply
    root.handlers, root.level, logging.raiseExceptions = kept
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    structlog.reset_defaults()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """Return what was logged, without the times."""

    def read() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        for line in found:
            assert line.pop("timestamp").endswith("Z")
        return found

    return read


def line(event: str, level: str = "info", **more: object) -> dict[str, object]:
    """Return a line of this service."""
    return {"event": event, "level": level, "service": "example", **more}


def fail(text: str = SECRET) -> None:
    """Raise an error whose text must not be logged."""
    raise ValueError(text)


def test_own_line_is_one_json_object(configure, lines) -> None:
    """Event, level, time, service and what was given."""
    configure()
    logs.get_logger(__name__).info("session", bytes=3, ok=True, ratio=0.5, id=None)
    assert lines() == [line("session", bytes=3, ok=True, ratio=0.5, id=None)]


@pytest.mark.parametrize("environment", ["production", "development"])
def test_a_reader_that_has_gone_stops_nobody(configure, monkeypatch, environment) -> None:
    """Neither lines of ours nor a library's raise, with the pipe broken or stdout closed."""
    reading, writing = os.pipe()
    os.close(reading)
    stdout = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stdout", stdout)
    configure(ENVIRONMENT=environment)
    logs.get_logger(__name__).info("e")
    logging.getLogger("httpcore").warning("e")
    with contextlib.suppress(BrokenPipeError):
        stdout.close()
    logs.get_logger(__name__).info("e")


def test_lines_of_threads_stay_whole(configure, lines) -> None:
    """Ours and a library's, written at the same time."""

    def write(number: int) -> None:
        for _ in range(50):
            logs.get_logger(__name__).info("own", number=number, text="x" * 500)
            logging.getLogger("httpcore").warning("foreign")

    configure()
    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = Counter((each["event"], each.get("number")) for each in lines())
    assert told == {**{("own", number): 50 for number in range(4)}, ("foreign", None): 200}


def test_level_decides(configure, lines) -> None:
    """What is less than LOG_LEVEL is not logged."""
    configure(LOG_LEVEL="warning")
    logs.get_logger(__name__).info("a")
    logs.get_logger(__name__).warning("b")
    assert lines() == [line("b", "warning")]


@pytest.mark.parametrize(
    ("value", "logged"),
    [
        ("x" * 512, "x" * 512),
        ("x" * 513, "x" * 512 + "…"),
        ("a\nb\x00", "a\nb\x00"),
        (b"audio", "<bytes>"),
        (ValueError(SECRET), "<ValueError>"),
        (float("nan"), "nan"),
        ({"a": ("x" * 600, b"")}, {"a": ["x" * 512 + "…", "<bytes>"]}),
    ],
)
def test_values_are_short_and_show_no_inside(configure, lines, value, logged) -> None:
    """A value is cut, and an object is told by its type."""
    configure()
    logs.get_logger(__name__).info("e", value=value)
    assert lines() == [line("e", value=logged)]


HOSTILE = [
    'x"}\n{"event":"forged"}\r\x1b[2J',
    "\x00\x07\x08\x7f\x85\u2028\u2029",
    "\u202etxt\u2066\u200b\ufeff",
    "\ud800 \udfff\udc80",
    "\N{PILE OF POO}" * 5_000,
    "%s {0} ${jndi:ldap://x}",
    "\\" * 5_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_hostile_text_stays_within_its_line(configure, capsys, log_format, text) -> None:
    """Wherever it stands, nobody can forge a second line or write to a terminal."""
    configure(LOG_FORMAT=log_format)
    log = logs.get_logger(__name__)
    log.info("value", value=text, more=text, again=text)
    log.info("inside", value={text: [text] * 5})
    log.info(text)
    logging.getLogger("httpcore").warning(text)
    log.info("last")
    output = capsys.readouterr().out
    lines = output.split("\n")[:-1]
    assert len(lines) == 5
    assert max(len(line.encode()) for line in lines) < 2_048
    assert all(line.isprintable() for line in lines)
    if log_format == "json":
        assert output.isascii()
        assert "forged" not in [json.loads(line)["event"] for line in lines]


def test_texts_are_cut_as_far_as_the_line_needs(configure, lines) -> None:
    """A few long ones are cut more; too many, and only what every line has is left."""
    configure()
    long, log = "x" * 600, logs.get_logger(__name__)
    log.info("some", **{f"value_{number}": long for number in range(10)})
    log.info("many", correlation_id="a", **{f"value_{number}": long for number in range(100)})
    log.info("huge", number=10**5_000, whole=2**63)
    assert lines() == [
        line("some", **{f"value_{number}": "x" * 128 + "…" for number in range(10)}),
        line("many", correlation_id="a", cut=True),
        line("huge", number="<int>", whole=2**63),
    ]


def test_exception_is_told_by_type_and_place(configure, lines) -> None:
    """In production its text is not logged, which may quote what somebody said."""
    configure()
    try:
        fail()
    except ValueError:
        logs.get_logger(__name__).exception("unexpected")
    place = f"{__name__}:{fail.__code__.co_firstlineno + 2}"
    assert lines() == [line("unexpected", "error", error="ValueError", at=place)]


def test_exception_in_a_library_is_told_with_our_own_place() -> None:
    """`at` is in the library, `via` is the last line of ours on the way there."""
    try:
        logs.describe("no exception")
    except AttributeError as error:
        own = logs.describe(error)
    source = "def f(g): g()"
    module = {"__name__": "speech_example"}
    exec(source, module)  # noqa: S102 - a function of another module
    try:
        module["f"](fail)
    except ValueError as error:
        told = logs.describe(error)
    assert own["at"].startswith("speech_lib.service.logs:")
    assert "via" not in own
    assert (told["error"], told["via"]) == ("ValueError", "speech_example:1")
    assert told["at"].startswith(__name__)


def test_development_shows_tracebacks(configure, lines) -> None:
    """There, and only there, the text and the frames are of use."""
    configure(ENVIRONMENT="development")
    try:
        fail()
    except ValueError:
        logs.get_logger(__name__).exception("unexpected")
    (logged,) = lines()
    assert logged["exception"].startswith("Traceback")
    assert SECRET in logged["exception"]


def test_a_traceback_is_cut_in_its_middle(configure, lines) -> None:
    """Where it begins and how it ends is kept; the rest of its line is there too."""
    configure(ENVIRONMENT="development")
    try:
        fail("x" * 100_000 + "end")
    except ValueError:
        logs.get_logger(__name__).exception("unexpected", value=1)
    (logged,) = lines()
    assert (logged["event"], logged["value"], len(logged["exception"])) == ("unexpected", 1, 8_193)
    assert logged["exception"].startswith("Traceback")
    assert logged["exception"].endswith("xend")


def test_a_traceback_for_people_keeps_its_lines_alone(configure, capsys) -> None:
    """What the exception says is escaped like any other text."""
    configure(ENVIRONMENT="development", LOG_FORMAT="console")
    try:
        fail("a\x1b[2J\r\u2028b")
    except ValueError:
        logs.get_logger(__name__).exception("unexpected")
    lines = capsys.readouterr().out.rstrip("\n").split("\n")
    assert lines[-1] == r"ValueError: a\x1b[2J\r\u2028b"
    assert len(lines) > 3
    assert all(each.isprintable() for each in lines)


def test_libraries_warn_without_their_arguments(configure, lines) -> None:
    """Arguments are addresses and texts; information and less of theirs is not logged at all."""
    configure()
    library = logging.getLogger("httpcore")
    library.info("connected to %s", SECRET)
    library.warning("cannot reach %s", SECRET)
    library.error(ValueError(SECRET))
    assert lines() == [
        line("cannot reach %s", "warning", logger="httpcore"),
        line("ValueError", "error", logger="httpcore"),
    ]


def test_exception_of_a_library_is_told_by_type_and_place(configure, lines) -> None:
    """Whoever logs it, the rule is the same."""
    configure()
    try:
        fail()
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error handling request")
    (logged,) = lines()
    assert (logged["event"], logged["error"]) == ("Error handling request", "ValueError")
    assert SECRET not in str(logged)


def test_own_standard_loggers_keep_their_arguments(configure, lines) -> None:
    """Our adapters log through the standard library too, and choose what they say."""
    configure()
    logging.getLogger("speech_lib.librdkafka.producer").info("broker %s", "_TRANSPORT")
    assert lines() == [line("broker _TRANSPORT", logger="speech_lib.librdkafka.producer")]


@pytest.mark.parametrize("environment", ["production", "development"])
def test_websockets_never_logs_frames(configure, lines, environment: str) -> None:
    """Its debug lines quote frames; its information repeats what a session's line says."""
    configure(
        ENVIRONMENT=environment, LOG_LEVEL="DEBUG" if environment == "development" else "INFO"
    )
    library = logging.getLogger("websockets.server")
    assert not library.isEnabledFor(logging.DEBUG)
    library.debug("< BINARY %s", SECRET)
    library.info("connection open")
    library.error("opening handshake failed")
    assert [logged["event"] for logged in lines()] == ["opening handshake failed"]


def test_console_format_is_for_people(configure, capsys) -> None:
    """The same content, not as JSON."""
    configure(LOG_FORMAT="console")
    logs.get_logger(__name__).info("listening", port=8000)
    output = capsys.readouterr().out
    assert "listening" in output
    assert "port=8000" in output
    assert not output.startswith("{")


def test_exception_that_nobody_handles_is_a_line(configure, lines) -> None:
    """Of the main thread, of another thread, and of a destructor: type and place."""

    class Broken:
        def __del__(self) -> None:
            fail()

    configure()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    broken = Broken()
    del broken
    gc.collect()
    place = f"{__name__}:{fail.__code__.co_firstlineno + 2}"
    told = {"error": "ValueError", "at": place}
    assert lines() == [
        line("unexpected_error", "critical", **told),
        line("unexpected_error", "error", thread="worker", **told),
        line("unexpected_error", "error", **told),
    ]


def test_exception_of_a_callback_is_a_line_without_its_arguments(configure, lines) -> None:
    """Asyncio's own message quotes the callback's arguments."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(logs.log_loop_exception)
        loop.call_soon(lambda _: fail(), SECRET)
        loop.call_exception_handler({"message": "Task was destroyed but it is pending!"})
        await asyncio.sleep(0)

    configure()
    asyncio.run(scenario())
    place = f"{__name__}:{fail.__code__.co_firstlineno + 2}"
    assert lines() == [
        line("unexpected_error", "error", reason="Task was destroyed but it is pending!"),
        line("unexpected_error", "error", error="ValueError", at=place),
    ]
