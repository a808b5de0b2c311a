"""The life of a service's process: configuration, logs, signals, exit code.

`python -m speech_gateway` and `python -m speech_asr` call `run`, and exit with what it returns. A
service does all its work in the coroutine that it passes.
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
"""Refusals of registry and broker that waiting does not end."""


class ExitCode(IntEnum):
    """The exit codes of a service."""

    DRAINED = 0
    DEFECT = 1
    CONFIGURATION = 2
    REFUSED = 3


class StopSignals:
    """What SIGTERM and SIGINT ask for: the first to drain, the second to end now."""

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
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Run a service from its environment to its end, and return the exit code of the process.

    Args:
        settings_class: Reads the environment.
        service_main: Takes the settings and the signals, and returns once it has drained. It may
            raise `startup.Stopped`, and `ConfigError` for a setting that only it can check (a
            model that is missing).
        service_name: The name in log lines and on stderr.
        environ: The environment.
        new_event_loop: Makes the event loop; by default the fastest one.

    Returns:
        0 after draining. 1 for a defect, which is logged. 2 for wrong configuration and 3 where
        the registry or the broker refuses for good, each with one line on stderr.
    """
    try:
        settings = settings_class.load(environ)
        logs.configure(settings, service_name)
        with asyncio.Runner(loop_factory=new_event_loop or fastest_event_loop) as runner:
            runner.run(_with_signals(service_main, settings))
    except ConfigError as error:
        return _end(service_name, error, ExitCode.CONFIGURATION)
    except REFUSED as error:
        return _end(service_name, error, ExitCode.REFUSED)
    except Exception:  # noqa: BLE001 - the last boundary: whatever it is, it is logged
        structlog.get_logger(__name__).exception("crashed")
        return ExitCode.DEFECT
    return ExitCode.DRAINED


def fastest_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop of uvloop where that is installed, else one of asyncio."""
    try:
        import uvloop  # noqa: PLC0415 - it has no wheel for Windows
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def in_background(work: Coroutine[Any, Any, None], stack: contextlib.AsyncExitStack) -> None:
    """Run `work` until the stack unwinds; then cancel it and wait for its end."""
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
