"""What must be there for a command of a document to run; for the tests of the documents.

Program by program it is told which arguments name something of this repository. Pure: whether it
is there is for the tests to find out.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, takewhile

from support.documents import Command, Document, commands

TAKES_A_VALUE = {
    "uv run": {"--extra", "--group", "--package", "--with", "--python"},
    "docker compose": {"-f", "--file", "-p", "--project-name", "--env-file", "--profile"},
    "docker compose COMMAND": {"--wait-timeout", "--timeout", "-t", "--tail", "--since", "--index"},
    "pytest": {"-k", "-n", "-p", "-o", "--durations", "--timeout", "--hypothesis-seed"},
}
ONE_SERVICE = frozenset({"exec", "run", "port"})
NO_SERVICE = frozenset({"version", "config", "ls", "cp"})
TEST_STEPS = frozenset({"checks", "quick", "processes", "containers", "full"})
"""What `scripts/test --only` takes."""
OURS = ("scripts/", ".ci/")
IN_SPANS = frozenset({"uv", "docker", "python", "pytest"})
"""What makes a span of several words a command; in blocks of `sh` everything is one."""

PLACEHOLDER = re.compile(r".*(?:\b(?:NAME|COMMAND|FILE|DIRECTORY)\b|[*…<>{}$]).*")
_LOGIC = frozenset({"and", "or", "not"})


@dataclass(frozen=True)
class Use:
    """Something that must exist.

    Attributes:
        kind: `script`, `command` (of `speech`), `option`, `service`, `profile`, `path`, `module`,
            `marker` or `program`.
        name: What it is called.
        of: Whose option it is.
    """

    kind: str
    name: str
    of: str = ""


def uses_of(document: Document, folders: Iterable[str]) -> Iterator[tuple[str, Use]]:
    """Yield what a document needs, each with the command or the path that it stands in.

    Args:
        document: What is read.
        folders: The repository's top folders: a span that begins with one is a path.
    """
    for command in _commands(document):
        yield from ((" ".join(command), use) for use in uses(command))
    for span in document.spans:
        if " " not in span and "/" in span and span.partition("/")[0] in folders:
            yield from ((span, use) for use in _paths([span.partition("::")[0]]))


def _commands(document: Document) -> Iterator[Command]:
    for block in document.blocks:
        if block.language == "sh":
            yield from commands(block.text)
    for span in document.spans:
        for command in commands(span) if " " in span else ():
            if command[0] in IN_SPANS or command[0].startswith(OURS):
                yield command


def uses(command: Command) -> Iterator[Use]:
    """Yield what one command needs."""
    match command:
        case "uv", "run", *rest:
            yield from uses(tuple(_after_options(rest, TAKES_A_VALUE["uv run"])))
        case "docker", "compose", *rest:
            yield from _compose(rest)
        case "speech", *rest:
            yield from _speech(rest)
        case (("python" | "python3"), "-m", module, *_):
            yield Use("module", module)
        case "pytest", *rest:
            yield from _pytest(rest)
        case "scripts/with-kafka" as script, *rest:
            yield Use("script", script)
            yield from uses(tuple(rest))
        case "scripts/test" as script, *rest:
            yield Use("script", script)
            own = list(takewhile({"--full", "--only", *TEST_STEPS}.__contains__, rest))
            yield from _options(script, own)
            yield from _pytest(rest[len(own) :])
        case script, *rest if script.startswith(OURS):
            yield from _script(script, rest)
        case program, *_:
            yield Use("program", program)


def _speech(words: list[str]) -> Iterator[Use]:
    match words:
        case command, *rest if not (command.startswith("-") or PLACEHOLDER.fullmatch(command)):
            yield Use("command", command)
            yield from _options(f"speech {command}", rest)
            yield from _paths(word for word in rest if "/" in word)


def _script(script: str, rest: list[str]) -> Iterator[Use]:
    if not PLACEHOLDER.fullmatch(script):
        yield Use("script", script)
        yield from _options(script, rest)
    yield from _paths(word for word in rest if "/" in word)


def _options(script: str, words: list[str]) -> Iterator[Use]:
    for word in words:
        if re.match(r"--?[a-z]", word):
            yield Use("option", word.partition("=")[0], script)


def _compose(words: list[str]) -> Iterator[Use]:
    valued = TAKES_A_VALUE["docker compose"]
    (_, *rest) = subcommand = list(_after_options(words, valued)) or [""]
    options = words[: len(words) - len(subcommand)]
    for option, value in pairwise(options):
        if option == "--profile":
            yield Use("profile", value)
        elif option in {"-f", "--file"}:
            yield Use("path", value)
    if subcommand[0] not in NO_SERVICE:
        yield from _services(rest, only_first=subcommand[0] in ONE_SERVICE)


def _services(words: list[str], *, only_first: bool) -> Iterator[Use]:
    remaining = iter(words)
    for word in remaining:
        if word == "--scale":
            yield Use("service", next(remaining, "").partition("=")[0])
        elif word in TAKES_A_VALUE["docker compose COMMAND"]:
            next(remaining, None)
        elif not word.startswith("-"):
            yield Use("service", word)
            if only_first:
                yield from uses(tuple(remaining)) if word == "tools" else ()
                return


def _pytest(words: list[str]) -> Iterator[Use]:
    remaining = iter(words)
    for word in remaining:
        if word == "-m":
            expression = re.findall(r"\w+", next(remaining, ""))
            yield from (Use("marker", each) for each in expression if each not in _LOGIC)
        elif word in TAKES_A_VALUE["pytest"]:
            next(remaining, None)
        elif not word.startswith("-"):
            yield from _paths([word.partition("::")[0]])


def _paths(words: Iterable[str]) -> Iterator[Use]:
    for word in words:
        if (
            not word.startswith(("-", "/"))
            and "://" not in word
            and not PLACEHOLDER.fullmatch(word)
        ):
            yield Use("path", word)


def _after_options(words: list[str], valued: set[str]) -> Iterator[str]:
    remaining = iter(words)
    for word in remaining:
        if word in valued:
            next(remaining, None)
        elif not word.startswith("-"):
            yield word
            yield from remaining
