"""What the documents refer to is there: links, anchors, paths, and every command with its options.

No network: addresses of other sites are held to their form only.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from speech_tools.cli import COMMANDS
from support.checkout import ROOT, files
from support.documents import Document, commands, parse
from support.uses import Use, uses, uses_of

FOLDERS = frozenset(path.parts[0] for path in files() if len(path.parts) > 1)
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
HISTORY = {Path("CHANGELOG.md")}
"""Tells of what was, so that its commands need not be there any more."""

LANGUAGES = {"sh", "text", "json", "http", "python", "javascript", "yaml", "avro"}
PROGRAMS = {
    *("bash", "cat", "cd", "cp", "curl", "docker", "git", "grep", "kafka-acls.sh", "kill"),
    *("base64", "chmod", "echo", "openssl", "pip", "python", "sed", "touch", "umask", "uv"),
    "websocat",
}
"""What is not ours: known to be meant, so that a slip of the pen is not taken for a program."""


@cache
def documents() -> dict[Path, Document]:
    """Return every document of the repository by its path from the root."""
    return {path: parse((ROOT / path).read_text()) for path in files() if path.suffix == ".md"}


@cache
def paths() -> frozenset[Path]:
    """Return every file of the repository, and every folder that holds one."""
    return frozenset(each for path in files() for each in (path, *path.parents))


def tell(problems: Iterable[str]) -> None:
    """Fail with a line for each problem, if there are any."""
    if lines := list(problems):
        pytest.fail("\n".join(lines), pytrace=False)


# Links


def broken(document: Path, link: str) -> str | None:
    """Return what is wrong with a link, or nothing."""
    address = urlsplit(link)
    if address.scheme:
        local = address.hostname in {"localhost", "127.0.0.1"}
        well_formed = "." in (address.hostname or "") and address.scheme == "https"
        return None if well_formed or local else "not the form of an https address"
    target = document
    if address.path:
        target = Path(os.path.normpath(document.parent / unquote(address.path)))
        if target not in paths():
            return "no such file in the repository"
    if not address.fragment:
        return None
    known = documents()[target].anchors if target in documents() else ()
    return None if address.fragment in known else "no such heading"


def test_every_link_leads_somewhere():
    """Relative links name a file of the repository, anchors a heading of it."""
    assert len(documents()) > 10
    tell(
        f"{path}: {link}: {problem}"
        for path, document in documents().items()
        for link in document.links
        if (problem := broken(path, link))
    )


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("docs/protocol.md", None),
        ("docs/protocol.md#refusals", None),
        ("docs", None),
        ("https://www.rfc-editor.org/rfc/rfc6455#section-5", None),
        ("docs/protocol.md#no-such", "no such heading"),
        ("#no-such", "no such heading"),
        ("scripts/test#L3", "no such heading"),
        ("docs/Protocol.md", "no such file in the repository"),
        ("../README.md", "no such file in the repository"),
        (".venv", "no such file in the repository"),
        ("http://example.org", "not the form of an https address"),
        ("https://example", "not the form of an https address"),
        ("mailto:someone@example.org", "not the form of an https address"),
    ],
)
def test_a_broken_link_is_told_from_a_good_one(link: str, problem: str | None):
    """As seen from README.md."""
    assert broken(Path("README.md"), link) == problem


def test_anchors_are_those_of_the_hosting():
    """Small letters, hyphens for blanks, no punctuation, a number where a heading is repeated."""
    text = "# `a_b` & What's *new*?\n\n## Same\n\nSame\n----\n\n```sh\n# no heading\n```\n"
    assert parse(text).anchors == {"a_b--whats-new", "same", "same-1"}


def test_no_link_is_left_without_its_address():
    """`[text][name]` without a definition of the name would be shown as it is written."""
    dangling = re.compile(r"\]\[\w*\]")
    prose = {
        path: re.sub(r"(?s)```.*?```|`[^`]*`", "", (ROOT / path).read_text())
        for path in documents()
    }
    assert [str(path) for path, text in prose.items() if dangling.search(text)] == []


# Commands


@cache
def compose() -> tuple[frozenset[str], frozenset[str]]:
    """Return the services and the profiles of all compose files."""
    found = (path for path in files() if path.match("docker-compose*.yml"))
    loaded = [yaml.load((ROOT / path).read_text(), yaml.CSafeLoader) for path in found]
    services = [each for one in loaded for each in one["services"].items()]
    return (
        frozenset(name for name, _ in services),
        frozenset(each for _, body in services for each in body.get("profiles", ())),
    )


@cache
def markers() -> frozenset[str]:
    """Return the markers that pytest knows here."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    return frozenset(each.partition(":")[0] for each in tools["pytest"]["ini_options"]["markers"])


@cache
def options_of(script: str) -> frozenset[str]:
    """Return the options of a script of ours: of its --help, or what stands in a shell script."""
    if script.startswith("speech "):
        text = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "speech_tools", *script.split()[1:], "--help"],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"COLUMNS": "200", "TERM": "dumb"},
        ).stdout
        return frozenset(OPTION.findall(text))
    text = (ROOT / script).read_text()
    behind = re.search(rf"\bspeech ({'|'.join(COMMANDS)})\b", text)
    own = frozenset(OPTION.findall(text))
    return own | options_of(behind.group()) if behind else own


def script_runs(use: Use) -> bool:
    """Tell whether a script is there, and may be run where it is not given to Python."""
    path = ROOT / use.name
    return Path(use.name) in paths() and (path.suffix == ".py" or os.access(path, os.X_OK))


def module_is_found(use: Use) -> bool:
    """Tell whether `python -m` finds a module; its parents are imported."""
    try:
        return importlib.util.find_spec(use.name) is not None
    except ModuleNotFoundError:
        return False


IS_THERE: dict[str, Callable[[Use], bool]] = {
    "script": script_runs,
    "option": lambda use: use.name in options_of(use.of),
    "command": lambda use: use.name in COMMANDS,
    "path": lambda use: Path(os.path.normpath(use.name)) in paths(),
    "service": lambda use: use.name in compose()[0],
    "profile": lambda use: use.name in compose()[1],
    "marker": lambda use: use.name in markers(),
    "module": module_is_found,
    "program": lambda use: use.name in PROGRAMS,
}
LOADS_SCRIPTS = {"option": pytest.mark.pipeline}
KINDS = [pytest.param(kind, marks=LOADS_SCRIPTS.get(kind, ())) for kind in IS_THERE]


@cache
def used() -> tuple[tuple[Path, str, Use], ...]:
    """Return what every document needs, with the place where it says so."""
    return tuple(
        (path, where, use)
        for path, document in documents().items()
        if path not in HISTORY
        for where, use in uses_of(document, FOLDERS)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_commands_of_the_documents_need_is_there(kind: str):
    """Every script, command, option, path, service, profile, module and program they name."""
    wanted = [each for each in used() if each[2].kind == kind]
    assert wanted
    tell(
        f"{path}: `{where}`: no {kind} {use.name}"
        for path, where, use in wanted
        if not IS_THERE[kind](use)
    )


def test_every_block_of_code_says_its_language():
    """Commands stand in `sh`; under another name, or none, nobody would check them."""
    tell(
        f"{path}: {block.language or 'no language'}: {block.text.splitlines()[0]}"
        for path, document in documents().items()
        for block in document.blocks
        if block.language not in LANGUAGES
    )


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        (
            "scripts/demo --fast  # a word",
            [Use("script", "scripts/demo"), Use("option", "--fast", "scripts/demo")],
        ),
        (
            "uv run --exact speech stream samples/a.raw --json=out FILE",
            [
                Use("command", "stream"),
                Use("option", "--json", "speech stream"),
                Use("path", "samples/a.raw"),
            ],
        ),
        (
            "docker compose run --rm tools speech top --once",
            [
                Use("service", "tools"),
                Use("command", "top"),
                Use("option", "--once", "speech top"),
            ],
        ),
        (
            "scripts/with-kafka uv run pytest -k some -m 'broker and not full' tests/a.py::test_b",
            [
                Use("script", "scripts/with-kafka"),
                Use("marker", "broker"),
                Use("marker", "full"),
                Use("path", "tests/a.py"),
            ],
        ),
        (
            "scripts/test --full services/gateway",
            [
                Use("script", "scripts/test"),
                Use("option", "--full", "scripts/test"),
                Use("path", "services/gateway"),
            ],
        ),
        (
            "scripts/test --only quick",
            [Use("script", "scripts/test"), Use("option", "--only", "scripts/test")],
        ),
        (
            "docker compose -f a.yml --profile edge up --wait --wait-timeout 9 --scale asr=2 kafka",
            [
                Use("path", "a.yml"),
                Use("profile", "edge"),
                Use("service", "asr"),
                Use("service", "kafka"),
            ],
        ),
        ("docker compose exec -T edge cat /x", [Use("service", "edge")]),
        (
            "A=1 python -m speech_asr >log; cd x && nosuch",
            [
                Use("module", "speech_asr"),
                Use("program", "cd"),
                Use("program", "nosuch"),
            ],
        ),
        ("cat <<END >x\nscripts/gone\nEND", [Use("program", "cat")]),
        ("uv run speech NAME", []),
        (
            "scripts/test \\\n  --full",
            [Use("script", "scripts/test"), Use("option", "--full", "scripts/test")],
        ),
    ],
)
def test_a_command_names_what_it_needs(line: str, needed: list[Use]):
    """Settings, comments, redirections, here-documents and placeholders are not part of it."""
    assert [use for command in commands(line) for use in uses(command)] == needed


@pytest.mark.parametrize(
    "use",
    [
        Use("script", "scripts/gone"),
        Use("script", "scripts/bootstrap"),  # sourced, never run
        Use("command", "gone"),
        Use("path", "docs/gone.md"),
        Use("service", "gone"),
        Use("profile", "gone"),
        Use("marker", "gone"),
        Use("module", "speech_lib.gone"),
        Use("module", "gone.gone"),
        Use("program", "gone"),
        pytest.param(Use("option", "--gone", "speech stream"), marks=pytest.mark.pipeline),
        pytest.param(Use("option", "--gone", "scripts/demo"), marks=pytest.mark.pipeline),
        pytest.param(Use("option", "--gone", "scripts/lock"), marks=pytest.mark.pipeline),
    ],
)
def test_what_is_not_there_is_noticed(use: Use):
    """For each kind of thing that a command may need."""
    assert not IS_THERE[use.kind](use)
