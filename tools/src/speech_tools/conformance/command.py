"""`speech conformance`: hold any deployment to docs/protocol.md, from outside."""

import asyncio
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from speech_tools.command_line import DEFAULT_URL, ApiKey, exit_codes, fail, make_app

# These modules fill the list of checks.
from speech_tools.conformance import connecting, endings, refusals, report, utterances  # noqa: F401
from speech_tools.conformance.checks import CHECKS, Check
from speech_tools.conformance.exchange import Target
from speech_tools.conformance.run import Result, Verdict, run
from speech_tools.protocol.connection import check_url, open_connection
from speech_tools.protocol.errors import StreamError
from speech_tools.terminal import Terminal, json_text
from speech_tools.verdict import judge_error


class Exit(IntEnum):
    """What was found, with the numbers of `speech check`."""

    CONFORMS = 0
    VIOLATES = 1
    USAGE = 2
    RETRY = 3
    REFUSED = 4


EPILOG = exit_codes(
    {
        Exit.CONFORMS: "each check passed, is expected to fail, or cannot be tested here",
        Exit.VIOLATES: "a check failed, or one that is expected to fail passed",
        Exit.USAGE: "wrong usage: the URL, a name, a file",
        Exit.RETRY: "not now: no connection, 503 or 429",
        Exit.REFUSED: "refused for good, before any check: a key, an origin",
    },
    "It stores ten short utterances of a quiet tone, and with --slow three more, one of them the"
    " longest. It has at most six connections at once. What nobody can see from outside is said"
    " apart, and never counts as passed.",
)
_complain = partial(fail, "conformance")


def _fail(code: Exit, line: str) -> NoReturn:
    raise typer.Exit(_complain(code, line))


def _chosen(names: list[str], *, slow: bool) -> list[Check]:
    """Return the checks whose name, or whose section, is named; all without a name."""
    if not names:
        return [each for each in CHECKS.values() if slow or not each.slow]
    named = {name: {name, name.partition("/")[0]} for name in CHECKS}
    if unknown := set(names) - set().union(*named.values()):
        _fail(Exit.USAGE, f"--only {min(unknown)}: expected a check or a section of --list")
    return [CHECKS[name] for name, its_names in named.items() if its_names & set(names)]


def _expected(file: Path | None) -> set[str]:
    """Read the names of the checks that are expected to fail: one a line, `#` begins a comment."""
    if file is None:
        return set()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        _fail(Exit.USAGE, f"--expected-failures {file}: cannot read it: {type(error).__name__}")
    names = {text for each in lines if (text := each.partition("#")[0].strip())}
    if unknown := sorted(names - set(CHECKS)):
        _fail(Exit.USAGE, f"--expected-failures: no check is named {unknown[0]}")
    return names


async def _hold(
    target: Target, checks: list[Check], expected: set[str], out: Terminal
) -> list[Result]:
    connection = await open_connection(check_url(target.url, {}), headers=target.headers())
    connection.transport.abort()
    results = []
    async for result in run(target, checks, expected):
        results.append(result)
        out.print(report.line(result))
    return results


def _list(out: Terminal) -> None:
    for each in CHECKS.values():
        out.print(f"{each.name}{'  (slow)' if each.slow else ''}\n    {each.says}")


app = make_app()


@app.command(epilog=EPILOG)
def main(  # noqa: PLR0913
    url: Annotated[
        str, typer.Argument(metavar="URL", envvar="GATEWAY_URL", help="ws://HOST:PORT/ws/audio")
    ] = DEFAULT_URL,
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(help="a check, or the checks of a section; may be repeated"),
    ] = None,
    slow: Annotated[
        bool, typer.Option("--slow", help="also what waits for the gateway's clocks: over a minute")
    ] = False,
    list_them: Annotated[bool, typer.Option("--list", help="show all checks and end")] = False,
    expected_failures: Annotated[
        Path | None, typer.Option(metavar="FILE", help="names of checks that may fail, and must")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="write JUnit's XML")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    origin: Annotated[str | None, typer.Option(help="the Origin that each request brings")] = None,
    api_key: ApiKey = None,
) -> None:
    """Hold any deployment to the protocol, from outside."""
    out = Terminal(quiet=as_json, soft_wrap=True)
    if list_them:
        _list(Terminal(soft_wrap=True))
        raise typer.Exit
    checks, expected = _chosen(only or [], slow=slow), _expected(expected_failures)
    try:
        results = asyncio.run(_hold(Target(url, api_key, origin), checks, expected, out))
    except StreamError as error:
        _fail(Exit(judge_error(error)), str(error))
    for result in results:
        if result.verdict is Verdict.FAILED:
            out.print("", *report.details(result), sep="\n")
    out.print(f"\n{report.summary(results)}")
    if as_json:
        print(json_text(report.as_json(url, results)))
    if junit is not None:
        _write(junit, report.junit(results))
    raise typer.Exit(Exit.VIOLATES if any(each.bad for each in results) else Exit.CONFORMS)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        _fail(Exit.USAGE, f"--junit {file}: cannot write it: {type(error).__name__}")
