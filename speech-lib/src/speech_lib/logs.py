"""Logs: one JSON line each on stdout, from this code and from the libraries alike.

`speech_lib.service` configures them once. What people say, the environment and the addresses of
others must not get here, so an exception is told by its type and the place where it was raised,
never by its text: that may quote what it was working on. Development alone permits tracebacks.
"""

import asyncio
import logging
import math
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from speech_lib.config import KafkaEnvironment

_MAX_CHARACTERS = 512
_OWN_PREFIX = "speech_"


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module: `get_logger(__name__)`."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def configure(settings: KafkaEnvironment, service_name: str) -> None:
    """Send all logs of this process, and every exception that nobody handles, to stdout."""
    development = settings.environment == "development"
    level = logging.getLevelNamesMapping()[settings.log_level]
    before = _processors(service_name, development=development)
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_formatter(settings, before))
    handler.addFilter(_Wanted(development=development))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # A debug line of websockets quotes the frames, so not even development gets to see it.
    logging.getLogger("websockets").setLevel(logging.INFO)
    logging.raiseExceptions = development  # a reader of stdout that has gone is no reason to print
    _catch_unhandled()


class _Wanted(logging.Filter):
    """Pass what operators need: all that is our own, and what libraries warn of."""

    def __init__(self, *, development: bool) -> None:
        super().__init__()
        self._libraries_from = logging.NOTSET if development else logging.WARNING

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide on one record."""
        if record.name.startswith("websockets"):
            # Its INFO lines tell each connection's opening and closing, as the session's do.
            return record.levelno > logging.INFO
        return _is_own(record) or record.levelno >= self._libraries_from


def _is_own(record: logging.LogRecord) -> bool:
    return isinstance(record.msg, dict) or record.name.startswith(_OWN_PREFIX)


def _processors(service_name: str, *, development: bool) -> list[Processor]:
    def add_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = service_name
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
        structlog.processors.format_exc_info if development else _tell_exception,
        _bound_values,
    ]


def _formatter(settings: KafkaEnvironment, before: list[Processor]) -> logging.Formatter:
    renderer: Processor = structlog.processors.JSONRenderer()
    if settings.log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    foreign = before if settings.environment == "development" else [_drop_arguments, *before]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *foreign],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def _drop_arguments(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Keep a library's message without its arguments: they hold addresses and texts."""
    record: logging.LogRecord = event["_record"]
    if not _is_own(record):
        event["event"] = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
    return event


def _tell_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace an exception by its type and where it was raised."""
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else sys.exception() if given is True else given
    if isinstance(error, BaseException):
        event.update(describe(error))
    return event


def describe(error: BaseException) -> dict[str, str]:
    """Tell an exception without its text: `error`, where it was raised, and from where of ours."""
    places = _places(error.__traceback__)
    own = [place for place in places if place.startswith(_OWN_PREFIX)]
    told = {"error": type(error).__name__, "at": places[-1] if places else "unknown"}
    return told | ({"via": own[-1]} if own and own[-1] != told["at"] else {})


def _places(traceback: TracebackType | None) -> list[str]:
    places = []
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "unknown")
        places.append(f"{module}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return places


def _bound_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    # A traceback, which only development has, is worth its length; `_record` and its like are the
    # formatter's own.
    whole = {"exception", "_record", "_from_structlog"}
    return {key: value if key in whole else _bound(value) for key, value in event.items()}


def _bound(value: object) -> object:
    """Make a value harmless: short, valid as JSON, and never the inside of an object."""
    match value:
        case str():
            return value if len(value) <= _MAX_CHARACTERS else value[:_MAX_CHARACTERS] + "…"
        case float() if not math.isfinite(value):
            return str(value)
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {str(key): _bound(item) for key, item in value.items()}
        case list() | tuple():
            return [_bound(item) for item in value]
        case _:
            return f"<{type(value).__name__}>"


def log_loop_exception(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what the event loop found unhandled (a loop's exception handler)."""
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
