"""The life of a service's process: configuration, logs, signals, exit code.

`python -m speech_gateway` and `python -m speech_asr` call `run` and exit with what it returns; all
that a service does is in the coroutine that it hands over.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from enum import IntEnum
from typing import Any, TypeVar

import structlog

from speech_lib.errors import ConfigError, SchemaNotFound, SchemaRefused, TopicMissing
from speech_lib.service import logs
from speech_lib.service.config import KafkaEnvironment
from speech_lib.service.startup import Stopped

SettingsT = TypeVar("SettingsT", bound=KafkaEnvironment)

REFUSED = (SchemaRefused, SchemaNotFound, TopicMissing)
"""Answers of registry and broker that waiting does not change."""


class ExitCode(IntEnum):
    """How a service ended."""

    DRAINED = 0
    DEFECT = 1
    CONFIGURATION = 2
    REFUSED = 3


class StopSignals:
    """What SIGTERM and SIGINT ask for: the first one to drain, a second one to end now."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.now = asyncio.Event()

    def receive(self) -> None:
        """Take one signal."""
        if self.drain.is_set():
            self.now.set()
        self.drain.set()


def run(
    settings_class: type[SettingsT],
    service_main: Callable[[SettingsT, StopSignals], Awaitable[None]],
    service_name: str,
    environ: Mapping[str, str] = os.environ,
) -> int:
    """Run a service from its environment to its end, and return the exit code of the process.

    `service_main` gets the checked settings and the signals; it returns when it has drained, and
    may let `startup.Stopped` through. It raises `ConfigError` for a setting that only it can judge
    (a model that is missing).

    Returns:
        0 after draining; 2 for wrong configuration and 3 where the registry or the broker refuses
        for good, each with one line on stderr; 1 for a defect, which is logged.
    """
    try:
        settings = settings_class.load(environ)
        logs.configure(settings, service_name)
        with asyncio.Runner() as runner:
            runner.run(_with_signals(service_main, settings))
    except ConfigError as error:
        return _end(service_name, error, ExitCode.CONFIGURATION)
    except REFUSED as error:
        return _end(service_name, error, ExitCode.REFUSED)
    except Exception:  # noqa: BLE001 - the last boundary: whatever it is, it is logged
        structlog.get_logger(__name__).exception("crashed")
        return ExitCode.DEFECT
    return ExitCode.DRAINED


def in_background(work: Coroutine[Any, Any, None], stack: contextlib.AsyncExitStack) -> None:
    """Run `work` until the stack unwinds; it is cancelled then, and waited for."""
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)


async def _with_signals(
    service_main: Callable[[SettingsT, StopSignals], Awaitable[None]], settings: SettingsT
) -> None:
    signals = StopSignals()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logs.log_loop_exception)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.receive)
    with contextlib.suppress(Stopped):
        await service_main(settings, signals)


def _end(service_name: str, error: Exception, code: ExitCode) -> int:
    sys.stderr.write(f"{service_name}: {error}\n")
    return code
