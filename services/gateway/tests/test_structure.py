"""The pure modules stay pure: what they import is written down here, and they load no I/O.

The directions between all modules of all members are held by `tests/test_structure.py` at the
root of the repository.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import speech_gateway

SOURCE = Path(speech_gateway.__file__).parent

IN_PACKAGE = {
    "errors": set(),
    "wav": set(),
    "rates": set(),
    "utterance": {"errors"},
    "messages": {"errors", "utterance", "wav"},
    "actions": {"messages", "utterance"},
    "text_wait": {"errors", "utterance"},
    "session": {"actions", "errors", "messages", "rates", "text_wait", "utterance", "wav"},
    "handshake": {"utterance"},
    "admission": {"handshake", "rates"},
}
"""The pure modules, and what each imports of this package."""

LIBRARY = (
    *("speech_lib.errors", "speech_lib.events", "speech_lib.events.model"),
    *("speech_lib.kafka.headers", "speech_lib.kafka.records"),
    *("speech_lib.service.places", "speech_lib.telemetry.context"),
)
"""The pure modules of the library that they use, and what these use."""

HARMLESS = {
    *("__future__", "collections", "collections.abc", "dataclasses", "enum", "functools", "typing"),
    *("hashlib", "http", "io", "ipaddress", "itertools", "json", "re", "urllib.parse", "wave"),
    *("langcodes.tag_parser", *LIBRARY),
}
"""What pure modules may import from outside: no clock, no loop, no socket, no file, no log."""


def imports(module: str) -> Iterator[str]:
    """Yield what a module imports, in dotted names, also where a function imports it."""
    for node in ast.walk(ast.parse((SOURCE / f"{module}.py").read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom("speech_gateway", names, 0):
                yield from (f"speech_gateway.{name.name}" for name in names)
            case ast.ImportFrom(name, _, level):
                yield f"{'.' * level}{name}"


@pytest.mark.parametrize("module", IN_PACKAGE)
def test_a_pure_module_imports_what_is_written_down_and_nothing_else(module: str) -> None:
    """Rules take values and return values."""
    names = set(imports(module))
    ours = {name for name in names if name.startswith("speech_gateway")}
    assert ours == {f"speech_gateway.{name}" for name in IN_PACKAGE[module]}
    assert names - ours <= HARMLESS


def test_loading_the_pure_modules_loads_no_io() -> None:
    """In an interpreter of its own: neither a loop nor a socket, a log, a client or a server."""
    modules = ", ".join(f"speech_gateway.{module}" for module in IN_PACKAGE)
    code = f"import {modules}, sys; print(*sys.modules)"
    loaded = subprocess.run(  # noqa: S603 - our own interpreter, our own text
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    ).stdout.split()
    assert "speech_gateway.session" in loaded
    io = {
        *("asyncio", "socket", "ssl", "selectors", "threading", "logging", "subprocess"),
        *("websockets", "confluent_kafka", "aiohttp", "structlog", "pydantic"),
    }
    assert io & set(loaded) == set()
    library = {name for name in loaded if name.startswith("speech_lib")}
    packages = {name.rpartition(".")[0] for name in LIBRARY}
    assert library == {"speech_lib", *packages, *LIBRARY}
