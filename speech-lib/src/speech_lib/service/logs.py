"""Logs: one JSON line each on stdout, from our code and from the libraries.

`run` configures them once. No line may hold speech, the environment or the addresses of others. So
an exception is logged as its type and where it was raised, never with its text, which may quote
what the code was working on. Only development permits tracebacks.

Text that a client forges cannot add a second line, or act on the terminal of a reader. A line of
JSON is ASCII, of at most 2,000 bytes without its traceback. The console format escapes all that is
not printable.
"""

import asyncio
import contextlib
import json
import logging
import math
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from speech_lib.service.config import KafkaEnvironment

_MAX_LINE_BYTES = 2_000
_MAX_CHARACTERS = (512, 128, 40)
"""The longest text in a line. The next bound is tried where the line is still too long."""
_MAX_TRACEBACK_CHARACTERS = 8_192
_MAX_NUMBER_BITS = 64
_ALWAYS = ("event", "level", "timestamp", "service", "logger", "correlation_id")
"""The fields that are left of a line that is too long whatever is cut."""
_OWN_PREFIX = "speech_"


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module: `get_logger(__name__)`."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def configure(settings: KafkaEnvironment, service_name: str) -> None:
    """Send all logs of this process, and every unhandled exception, to stdout."""
    development = settings.environment == "development"
    level = logging.getLevelNamesMapping()[settings.log_level]
    before = _processors(service_name, development=development)
    lines = _Lines(sys.stdout)
    # Not by way of `logging`, as the libraries' lines: that doubles the cost of a line.
    structlog.configure(
        processors=[*before, *_renderers(settings)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_formatter(settings, before))
    handler.addFilter(_Wanted(development=development))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # A debug line of websockets quotes the frames, so not even development shows it.
    logging.getLogger("websockets").setLevel(logging.INFO)
    logging.raiseExceptions = development  # a closed stdout is no reason to print
    _catch_unhandled()


class _Lines:
    """Writes our own lines. A closed stdout is no reason to stop."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout

    def msg(self, line: str) -> None:
        """Write one whole line at once."""
        with contextlib.suppress(OSError, ValueError):
            self._stdout.write(line + "\n")
            self._stdout.flush()

    debug = info = warning = error = critical = msg


class _Wanted(logging.Filter):
    """Passes what operators need: all our own lines, and the libraries' warnings."""

    def __init__(self, *, development: bool) -> None:
        super().__init__()
        self._libraries_from = logging.NOTSET if development else logging.WARNING

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide on one record."""
        if record.name.startswith("websockets"):
            # Its INFO lines report each connection's opening and closing, as the session's do.
            return record.levelno > logging.INFO
        return _is_own(record) or record.levelno >= self._libraries_from


def _is_own(record: logging.LogRecord) -> bool:
    return record.name.startswith(_OWN_PREFIX)


def _processors(service_name: str, *, development: bool) -> list[Processor]:
    def add_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = service_name
        return event

    return [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
        structlog.processors.format_exc_info if development else _tell_exception,
    ]


def _renderers(settings: KafkaEnvironment) -> list[Processor]:
    if settings.log_format == "console":
        people = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
        return [_bounded, _printable, people]
    return [_bounded_json]


def _formatter(settings: KafkaEnvironment, before: list[Processor]) -> logging.Formatter:
    foreign = before if settings.environment == "development" else [_drop_arguments, *before]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *foreign],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *_renderers(settings),
        ],
    )


def _drop_arguments(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Keep a library's message without its arguments, which hold addresses and texts."""
    record: logging.LogRecord = event["_record"]
    if not _is_own(record):
        event["event"] = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
    return event


def _tell_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace an exception by its type and where it was raised, see `describe`."""
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else sys.exception() if given is True else given
    if isinstance(error, BaseException):
        event.update(describe(error))
    return event


def describe(error: BaseException) -> dict[str, str]:
    """Return an exception's type (`error`), where it was raised (`at`) and our caller (`via`)."""
    places = _places(error.__traceback__)
    own = [place for place in places if place.startswith(_OWN_PREFIX)]
    described = {"error": type(error).__name__, "at": places[-1] if places else "unknown"}
    return described | ({"via": own[-1]} if own and own[-1] != described["at"] else {})


def _places(traceback: TracebackType | None) -> list[str]:
    places = []
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "unknown")
        places.append(f"{module}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return places


def _bounded(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    traceback = event.pop("exception", None)
    fitting, _line = _fit(event)
    return fitting if traceback is None else {**fitting, "exception": _middle_cut(traceback)}


def _bounded_json(logger: WrappedLogger, name: str, event: EventDict) -> str:
    if "exception" in event:
        return json.dumps(_bounded(logger, name, event))
    return _fit(event)[1]


def _middle_cut(traceback: str) -> str:
    """Keep the beginning and the end of a traceback; only development has one."""
    if len(traceback) <= _MAX_TRACEBACK_CHARACTERS:
        return traceback
    half = _MAX_TRACEBACK_CHARACTERS // 2
    return f"{traceback[:half]}…{traceback[-half:]}"


def _fit(event: EventDict) -> tuple[dict[str, Any], str]:
    """Cut the texts of a line until it fits; if that is not enough, drop the optional fields.

    Also return it as JSON, which was made anyway to know its length.
    """
    for most in _MAX_CHARACTERS:
        cut = {key: _bound(value, most) for key, value in event.items()}
        line = json.dumps(cut)
        if len(line) <= _MAX_LINE_BYTES:
            return cut, line
    rest = {key: cut[key] for key in _ALWAYS if key in cut} | {"cut": True}
    return rest, json.dumps(rest)


def _bound(value: object, most: int) -> object:
    """Make a value harmless: short, valid in JSON, and never the inside of an object."""
    match value:
        case str():
            return value if len(value) <= most else value[:most] + "…"
        case float() if not math.isfinite(value):
            return str(value)
        case int() if value.bit_length() > _MAX_NUMBER_BITS:
            return "<int>"  # Python writes no number of more than 4,300 digits
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {_bound(str(key), most): _bound(item, most) for key, item in value.items()}
        case list() | tuple():
            return [_bound(item, most) for item in value]
        case _:
            return f"<{type(value).__name__}>"


def _printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape what acts on a terminal. Only a traceback may have several lines."""
    return {
        key: _escaped(value, "\n" if key == "exception" else "")
        if isinstance(value, str)
        else value  # the renderer shows it by its `repr`, which escapes
        for key, value in event.items()
    }


def _escaped(text: str, kept: str) -> str:
    return "".join(
        each if each.isprintable() or each in kept else repr(each)[1:-1] for each in text
    )


def log_loop_exception(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an exception that the event loop found unhandled (a loop's exception handler)."""
    log, error = get_logger(__name__), context.get("exception")
    if error is None:
        log.error("unexpected_error", reason=context["message"])
    else:
        # Not the message: it quotes the callback with its arguments.
        log.error("unexpected_error", exc_info=error)


def _catch_unhandled() -> None:
    log = get_logger(__name__)

    def main_thread(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
        log.critical("unexpected_error", exc_info=error)

    def other_thread(arguments: threading.ExceptHookArgs) -> None:
        name = arguments.thread.name if arguments.thread else "unknown"
        log.error("unexpected_error", thread=name, exc_info=arguments.exc_value)

    def destructor(arguments: Any) -> None:  # noqa: ANN401 - sys.UnraisableHookArgs exists for mypy only
        log.error("unexpected_error", exc_info=arguments.exc_value)

    sys.excepthook = main_thread
    threading.excepthook = other_thread
    sys.unraisablehook = destructor
