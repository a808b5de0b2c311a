"""What the documents refer to is there: links, anchors, paths, commands and their options."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from speech_tools.cli import COMMANDS
from support.checkout import ROOT, files
from support.documents import Command, Document, commands, parse

GUIDES = ["README.md", "docs/operations.md", "docs/protocol.md", "docs/security.md"]
HISTORY = Path("CHANGELOG.md")
"""Tells of what was, so that its commands need not be there any more."""

FOLDERS = {path.parts[0] for path in files() if len(path.parts) > 1}
PATHS = {each for path in files() for each in (path, *path.parents)}
DOCUMENTS = {path: parse((ROOT / path).read_text()) for path in files() if path.suffix == ".md"}
COMPOSE = [
    service
    for path in files()
    if path.match("docker-compose*.yml")
    for service in yaml.load((ROOT / path).read_text(), yaml.CSafeLoader)["services"].items()
]

LANGUAGES = {"sh", "text", "json", "http", "python", "javascript", "yaml", "avro", "html"}
OURS = ("scripts/", ".ci/")
OTHERS = {"uv", "docker", "python", "pytest"}
"""Programs of others: options behind them are not ours."""

OWN_OF_TEST = {"--full", "--only", "checks", "quick", "processes", "containers", "full"}
"""What `scripts/test` takes itself; pytest gets the rest."""

OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
PLACEHOLDER = re.compile(r".*(?:\b(?:NAME|COMMAND|FILE|DIRECTORY)\b|[*…<>{}$]).*")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)+/?(?:::\w+)?$|[\w.-]+/$")
OF_SERVICES = {"up", "run", "exec", "logs", "ps", "stop", "start", "restart", "build", "push"}
TAKES_A_VALUE = {"--wait-timeout", "--timeout", "-t", "--tail", "--since"}

Use = tuple[str, str]
"""A kind of thing, and its name; an option's is `OWNER OPTION`."""


def uses(document: Document) -> Iterator[Use]:
    """Yield what the commands and the paths of a document need."""
    for block in document.blocks:
        if block.language == "sh":
            for command in commands(block.text):
                yield from uses_of(command)
    for span in document.spans:
        if PATH.match(span) and span.partition("/")[0] in FOLDERS:
            yield "test" if "::" in span else "path", span
        for command in commands(span) if " " in span else ():
            if command[0] in OTHERS or command[0].startswith(OURS):
                yield from uses_of(command)


def uses_of(command: Command) -> Iterator[Use]:
    """Yield what one command needs, word by word."""
    owner = ""
    for word, following in pairwise((*command, "")):
        if PLACEHOLDER.fullmatch(word):
            continue
        if owner == "scripts/test" and word not in OWN_OF_TEST:
            owner = ""
        if word.startswith(OURS) and not owner:
            owner = word
            yield "script", word
        elif word == "speech" and re.match(r"[a-z]", following):
            owner = f"speech {following}"
            yield "command", following
        elif word in OTHERS:
            owner = ""
        elif word == "-m" and following.startswith("speech_"):
            yield "module", following
        elif owner and OPTION.match(word):
            yield "option", f"{owner} {word.partition('=')[0]}"
        elif PATH.match(word):
            yield "path", word.partition("::")[0]
    yield from uses_of_compose(list(command))


def uses_of_compose(command: list[str]) -> Iterator[Use]:
    """Yield the profiles and services of a `docker compose` command."""
    if command[:2] != ["docker", "compose"]:
        return
    yield from (("profile", value) for option, value in pairwise(command) if option == "--profile")
    begins = next((at for at, word in enumerate(command) if word in OF_SERVICES), len(command))
    named = [
        word.partition("=")[0]  # of --scale
        for before, word in pairwise(command[begins:])
        if not word.startswith("-") and before not in TAKES_A_VALUE
    ]
    only = 1 if {"run", "exec"} & set(command[begins : begins + 1]) else len(named)
    yield from (("service", name) for name in named[:only])


@cache
def options_of(owner: str) -> frozenset[str]:
    """Return the options of a command of ours: of its --help, or what stands in a shell script."""
    if owner.startswith("speech "):
        text = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "speech_tools", *owner.split()[1:], "--help"],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"COLUMNS": "200", "TERM": "dumb"},
        ).stdout
        return frozenset(OPTION.findall(text))
    text = (ROOT / owner).read_text()
    behind = re.search(rf"\bspeech ({'|'.join(COMMANDS)})\b", text)
    own = frozenset(OPTION.findall(text))
    return own | options_of(behind.group()) if behind else own


def is_test(name: str) -> bool:
    """Tell whether a test file has this test."""
    file, _, test = name.partition("::")
    return Path(file) in PATHS and f"def {test}(" in (ROOT / file).read_text()


def module_is_found(name: str) -> bool:
    """Tell whether `python -m` finds a module; its parents are imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


IS_THERE: dict[str, Callable[[str], bool]] = {
    "script": lambda name: Path(name) in PATHS and os.access(ROOT / name, os.X_OK),
    "option": lambda name: name.split()[-1] in options_of(name.rpartition(" ")[0]),
    "command": COMMANDS.__contains__,
    "test": is_test,
    "path": lambda name: Path(os.path.normpath(name)) in PATHS,
    "service": lambda name: name in dict(COMPOSE),
    "profile": lambda name: any(name in each.get("profiles", ()) for _, each in COMPOSE),
    "module": module_is_found,
}
LOADS_SCRIPTS = {"option": pytest.mark.pipeline}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=LOADS_SCRIPTS.get(kind, ())) for kind in IS_THERE]
)
def test_what_the_commands_of_the_documents_need_is_there(kind: str):
    """Every script, command, option, path, test, service, profile and module that they name."""
    named = {
        (str(path), name)
        for path, document in DOCUMENTS.items()
        if path != HISTORY
        for of, name in uses(document)
        if of == kind
    }
    assert len(named) > 1
    assert {each for each in named if not IS_THERE[kind](each[1])} == set()


def broken(path: Path, document: Document) -> set[str]:
    """Return the links of a document that name no file of the repository, or no heading there."""
    known = DOCUMENTS | {path: document}
    wrong = set()
    for link in document.links:
        address = urlsplit(link)
        target = Path(os.path.normpath(path.parent / unquote(address.path)))
        target = target if address.path else path
        if address.scheme:
            continue
        anchors = known[target].anchors if target in known else frozenset()
        there = target in PATHS or target in known
        if not there or (address.fragment and address.fragment not in anchors):
            wrong.add(link)
    return wrong


def test_every_link_leads_somewhere():
    """Relative links name a file of the repository, anchors a heading of it."""
    assert len(DOCUMENTS) > 10
    found = {str(path): broken(path, document) for path, document in DOCUMENTS.items()}
    assert {path: links for path, links in found.items() if links} == {}


@pytest.mark.parametrize("guide", GUIDES)
def test_every_guide_says_trusted_network_only(guide: str):
    """Whoever reads one guide alone is told."""
    assert "> **Trusted network only.**" in (ROOT / guide).read_text()


def test_every_control_of_the_security_guide_has_a_test():
    """The last column of each row names one."""
    guide = (ROOT / "docs" / "security.md").read_text()
    controls = guide.partition("## Controls and their tests")[2].partition("\n## ")[0]
    rows = [line for line in controls.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    assert [row for row in rows if "test_" not in row.split(" | ")[-1]] == []


def test_every_block_of_code_says_its_language():
    """Commands stand in `sh`; under another name, or none, nobody would check them."""
    blocks = {block.language for document in DOCUMENTS.values() for block in document.blocks}
    assert blocks <= LANGUAGES


WRONG = """
# Here

[a](gone.md) [b](#gone) [c](docs/protocol.md#gone) [d](docs/Protocol.md) [e](../README.md)
[here](#here) [there](docs/protocol.md#refusals)

`tests/gone.py` `tests/test_demo.py::test_gone` `uv run speech gone`
`docker compose --profile gone up gone --wait`

```sh
scripts/gone; scripts/demo --gone
A=1 uv run --exact speech stream samples/a.raw --gone=x FILE | python -m speech_lib.gone
docker compose run --rm missing speech top
scripts/test --only quick -k x tests/gone/test_a.py::test_b
```
"""


@pytest.mark.pipeline
def test_what_is_not_there_is_noticed():
    """Of each kind, wherever it stands, and nothing else."""
    document = parse(WRONG)
    assert {use for use in uses(document) if not IS_THERE[use[0]](use[1])} == {
        *(("script", "scripts/gone"), ("option", "scripts/demo --gone"), ("command", "gone")),
        *(("option", "speech stream --gone"), ("path", "samples/a.raw"), ("path", "tests/gone.py")),
        *(("path", "tests/gone/test_a.py"), ("module", "speech_lib.gone"), ("profile", "gone")),
        *(("service", "gone"), ("service", "missing"), ("test", "tests/test_demo.py::test_gone")),
    }
    links = {"gone.md", "#gone", "docs/protocol.md#gone", "docs/Protocol.md", "../README.md"}
    assert broken(Path("NEW.md"), document) == links
