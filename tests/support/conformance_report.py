"""Try the gateway's WebSocket server with the Autobahn|Testsuite, and show how it did.

    PYTHONPATH=tests uv run python -m support.conformance_report [--write] [--report DIRECTORY]

Starts a server of its own on loopback. It takes the suite a quarter of a minute; the first time it
is installed before (`support/autobahn.py` says where it is found).
"""

import asyncio
import sys
import tempfile
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer

from support import autobahn
from support.autobahn import AutobahnError, Outcome
from support.conformance import DOCUMENT, measure, table, with_table

EPILOG = """\
Exit codes:

0  every case was tried; tests/security/test_autobahn.py says whether each ended as documented

2  wrong usage

3  the suite is not on this machine, or could not be installed or run
"""


class Exit(IntEnum):
    """What came of it."""

    DONE = 0
    USAGE = 2
    NO_SUITE = 3


def try_all(directory: Path) -> dict[str, Outcome]:
    """Run the suite of this machine.

    Raises:
        AutobahnError: if there is none, or it cannot be run.
    """
    suite = autobahn.find()
    if suite is None:
        raise AutobahnError(autobahn.MISSING)
    return asyncio.run(measure(suite, directory))


def main(
    *,
    write: Annotated[
        bool, typer.Option("--write", help="Put the table into docs/conformance.md.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Keep the suite's own report here.", file_okay=False, resolve_path=True),
    ] = None,
) -> None:
    """Show a table of the sections of the suite, with how many cases ended how."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = report or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            outcomes = try_all(directory)
        except (AutobahnError, TimeoutError) as error:
            print(f"conformance: {error or 'the suite did not end'}", file=sys.stderr)
            raise typer.Exit(Exit.NO_SUITE) from None
    print(table(outcomes), end="")
    for case, outcome in outcomes.items():
        if outcome.verdict != "OK":
            print(f"{case}: {outcome.verdict}, closed with {outcome.code}")
    if write:
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(with_table(text, outcomes), encoding="utf-8")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(epilog=EPILOG)(main)
    app()
