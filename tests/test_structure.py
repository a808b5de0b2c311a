"""Imports point one way, in every member of the workspace and between them.

Read from the sources, so that an import inside a function counts too. `docs/architecture.md` draws
what is held here.
"""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from speech_tools.cli import COMMANDS

ROOT = Path(__file__).parents[1]
MEMBERS = {
    "speech_lib": ROOT / "speech-lib/src/speech_lib",
    "speech_gateway": ROOT / "services/gateway/src/speech_gateway",
    "speech_asr": ROOT / "services/asr/src/speech_asr",
    "speech_tools": ROOT / "tools/src/speech_tools",
}
SERVICES = ("speech_gateway", "speech_asr")

WEBSOCKETS = {"speech_gateway.server", "speech_gateway.connection", "speech_gateway.frames"}
KAFKA_CLIENTS = {
    "Producer": {"speech_lib.kafka.producing.client"},
    "Consumer": {
        "speech_lib.kafka.consumer",
        "speech_lib.kafka.consuming.crash_marks",
        "speech_lib.kafka.consuming.lag",
        "speech_lib.kafka.consuming.offset_reader",
        "speech_lib.kafka.tail",
    },
    "AdminClient": {"speech_lib.kafka.admin"},
}

PURE = {
    "speech_lib.errors",
    "speech_lib.events",
    "speech_lib.events.codec",
    "speech_lib.events.model",
    "speech_lib.events.schemas",
    "speech_lib.events.writer_schema",
    "speech_lib.kafka.consuming.config",
    "speech_lib.kafka.consuming.damaged_batch",
    "speech_lib.kafka.consuming.membership",
    "speech_lib.kafka.headers",
    "speech_lib.kafka.producing.rebuild",
    "speech_lib.kafka.records",
    "speech_lib.kafka.settings",
    "speech_lib.service.health",
    "speech_lib.service.places",
    "speech_lib.service.setting_types",
    "speech_lib.telemetry.context",
    "speech_lib.telemetry.settings",
    "speech_lib.telemetry.spans",
    "speech_gateway.actions",
    "speech_gateway.admission",
    "speech_gateway.errors",
    "speech_gateway.handshake",
    "speech_gateway.lanes",
    "speech_gateway.messages",
    "speech_gateway.rates",
    "speech_gateway.session",
    "speech_gateway.text_wait",
    "speech_gateway.utterance",
    "speech_gateway.wav",
    "speech_asr.engine",
    "speech_asr.errors",
    "speech_asr.fair",
    "speech_asr.intake",
    "speech_asr.loops",
    "speech_asr.offsets",
    "speech_asr.speech_parts",
    "speech_asr.wav",
    "speech_tools.latency.hops",
    "speech_tools.operations.metrics_page",
    "speech_tools.percentiles",
    "speech_tools.protocol.errors",
    "speech_tools.protocol.messages",
    "speech_tools.topics",
    "speech_tools.top.figures",
    "speech_tools.trace.tracing",
}
IO = {
    *("aiohttp", "asyncio", "confluent_kafka", "http.client", "http.server", "httpx", "socket"),
    *("ssl", "structlog", "subprocess", "urllib.request", "websockets"),
}

WIRED_BY_MAIN = {"speech_gateway.publisher", "speech_gateway.server"}
"""The two ends of the gateway, which know nothing of each other."""


def sources() -> dict[str, Path]:
    """Return every module of every member by its dotted name."""
    return {
        ".".join((member, *path.relative_to(folder).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for member, folder in MEMBERS.items()
        for path in sorted(folder.rglob("*.py"))
    }


def imported(path: Path, package: str) -> Iterator[str]:
    """Yield everything that a source file imports, each name of a `from` with its module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: -node.level or None] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{name.name}" for name in node.names)


SOURCES = sources()
TOOLS = "speech_tools"
SHIPPED = {name for name in SOURCES if not {"testing", TOOLS} & set(name.split("."))}
"""What runs in a service: doubles, brokers and clients for tests stand under `testing`."""
IMPORTS = {name: set(imported(path, name)) for name, path in SOURCES.items()}


def imports_of(module: str, what: str) -> bool:
    """Tell whether `module` imports `what`, or something inside it."""
    return any(name == what or name.startswith(f"{what}.") for name in IMPORTS[module])


def importers(what: str) -> set[str]:
    return {module for module in SHIPPED if imports_of(module, what)}


def within_members(module: str) -> set[str]:
    """Return the modules of ours that a module imports: `from x import y` may mean x or x.y."""
    names = {name if name in SOURCES else name.rpartition(".")[0] for name in IMPORTS[module]}
    return names & SOURCES.keys()


def of_member(member: str) -> set[str]:
    return {module for module in SOURCES if module.split(".")[0] == member}


@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_is_looked_at(member: str) -> None:
    """A folder that moved would make every other test here pass for nothing."""
    assert len(of_member(member)) > 3


def test_the_services_share_the_library_and_never_import_each_other() -> None:
    """The library imports no service, and a service no other: they meet on the topics."""
    for service in SERVICES:
        users = {module for module in SOURCES if imports_of(module, service)}
        assert users <= of_member(service)


def test_nothing_that_users_run_imports_the_machinery_of_tests() -> None:
    """`tests/support` is for tests alone, and the tools speak to services as anybody does."""
    assert {module for module in SOURCES if imports_of(module, "support")} == set()
    for service in SERVICES:
        assert {name for name in of_member(TOOLS) if imports_of(name, service)} == set()


ROOMS = {".".join(module.split(".")[:2]) for module, _ in COMMANDS.values()}
"""A subcommand is one module, or a package of them."""


def room(module: str) -> str | None:
    """Return the subcommand that a module belongs to; nothing for what subcommands share."""
    return next((each for each in ROOMS if module == each or module.startswith(f"{each}.")), None)


FETCHES = ("fetching", "manifest", "screen")


def test_subcommands_know_what_they_share_and_not_each_other() -> None:
    """Only `latency` reads traces, and the demo fetches a model. What is shared knows none."""
    crossing = {
        (room(module), known)
        for module in of_member(TOOLS)
        for known in within_members(module)
        if room(known) not in {None, room(module)}
    }
    assert crossing == {
        ("speech_tools.latency", "speech_tools.trace.tracing"),
        *(("speech_tools.demo", f"speech_tools.models.{each}") for each in FETCHES),
    }


def test_no_service_runs_on_what_is_made_for_tests() -> None:
    """Doubles stay where they are."""
    assert {name for name in SHIPPED if within_members(name) - SHIPPED} == set()


def test_only_the_gateways_server_side_imports_websockets() -> None:
    """One module per technology; what stands between the rules and the socket is these three."""
    assert importers("websockets") == WEBSOCKETS


@pytest.mark.parametrize("name", KAFKA_CLIENTS)
def test_only_the_librarys_adapters_import_a_kafka_client(name: str) -> None:
    """Everything else speaks to a broker through these three, and each of them through its own."""
    users = {
        module
        for module in SHIPPED
        for imported_name in IMPORTS[module]
        if imported_name.startswith("confluent_kafka") and imported_name.endswith(f".{name}")
    }
    assert users == KAFKA_CLIENTS[name]


def test_no_service_knows_which_kafka_library_is_used() -> None:
    """It stays inside of the library, and the registry's client inside of one module."""
    assert importers("confluent_kafka") <= of_member("speech_lib")
    assert importers("confluent_kafka.schema_registry") == {"speech_lib.kafka.registry"}


def test_opentelemetry_stays_inside_of_one_module() -> None:
    """It is an extra: what is loaded without it must not import it."""
    assert importers("opentelemetry") == {"speech_lib.telemetry.otlp"}
    assert {name for name in SHIPPED if "speech_lib.telemetry.otlp" in within_members(name)} == {
        "speech_lib.telemetry.export"
    }


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_knows_only_pure_modules(module: str) -> None:
    """No I/O by itself, and none by what it imports."""
    assert {what for what in IO if imports_of(module, what)} == set()
    assert within_members(module) - MEMBERS.keys() <= PURE


PACKAGES = ("events", "kafka", "telemetry", "service")
"""Of speech_lib, in the order in which they may know each other. `errors` is below all of them."""


@pytest.mark.parametrize(("level", "package"), list(enumerate(PACKAGES)))
def test_the_librarys_packages_know_only_those_before_them(level: int, package: str) -> None:
    """A reader of `kafka` needs nothing of `telemetry` or `service`."""
    allowed = {"errors", *PACKAGES[: level + 1]}
    inside = {name for name in SOURCES if name.startswith(f"speech_lib.{package}")}
    known = {name for module in inside for name in within_members(module) if "." in name}
    assert {name.split(".")[1] for name in known} - allowed == set()


@pytest.mark.parametrize(
    ("parts", "doors"), [("producing", {"producer"}), ("consuming", {"consumer", "tail"})]
)
def test_the_parts_of_producer_and_consumer_are_nobody_elses(parts: str, doors: set[str]) -> None:
    """Services know the doors alone."""
    package = f"speech_lib.kafka.{parts}"
    users = {name for name in importers(package) if not name.startswith(package)}
    assert users == {f"speech_lib.kafka.{door}" for door in doors}


FILE_LINES, FUNCTION_LINES = 320, 40
"""What a reader takes in at once. A longer one does more than one thing."""


@pytest.mark.parametrize("member", MEMBERS)
def test_files_and_functions_can_be_read_at_once(member: str) -> None:
    """Each file and each function has a bounded number of lines."""
    texts = {module: SOURCES[module].read_text(encoding="utf-8") for module in of_member(member)}
    files = {module for module, text in texts.items() if text.count("\n") > FILE_LINES}
    functions = {
        f"{module}.{node.name}"
        for module, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES
    }
    assert (files, functions) == (set(), set())


@pytest.mark.parametrize("member", MEMBERS)
def test_imports_make_no_circle(member: str) -> None:
    """There is an order in which the modules can be read, each after what it imports."""
    graph = {module: within_members(module) - {module} for module in of_member(member)}
    assert set(TopologicalSorter(graph).static_order()) >= of_member(member)


def test_main_alone_wires() -> None:
    """Nobody imports a `__main__`, and nobody else knows both ends of the gateway."""
    mains = {module for module in SOURCES if module.endswith(".__main__")}
    known = {module: within_members(module) for module in SOURCES}
    assert [module for module in SOURCES if known[module] & mains] == []
    for end in WIRED_BY_MAIN:
        assert {name for name in SHIPPED if end in known[name]} == {"speech_gateway.__main__"}
