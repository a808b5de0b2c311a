"""Take each control out, one at a time, and see that its tests notice.

    PYTHONPATH=tests uv run python -m support.controls [ID ...] [--list]

The controls, what takes them out, and the tests are in `tests/controls.toml`; the requirements that
they fulfil are in `agent-output/qa/005-ingress-gateway-qa.md`. Everything is tried in a copy.
"""

import sys
import tempfile
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from support import checkout, removals
from support.removals import Control, RemovalError, Verdict


class Exit(IntEnum):
    """What came of it."""

    NOTICED = 0
    UNNOTICED = 1
    USAGE = 2


EPILOG = """\
Exit codes:

0  every removal was noticed by each of its tests

1  at least one was not, or its tests did not run

2  no such id, the table is wrong, or the tests fail with every control in place
"""


def run(ids: Sequence[str], *, only_list: bool) -> Exit:
    """Try the controls with these ids, or all; print what came of each."""
    try:
        controls = removals.select(removals.load(), ids)
        if only_list:
            _list(controls)
            return Exit.NOTICED
        with tempfile.TemporaryDirectory(prefix="controls-") as folder:
            copy = checkout.copy(Path(folder))
            copy.commit("Try it")  # some tests ask git for the files
            return _try(controls, copy)
    except RemovalError as error:
        return _complain(str(error))


def _list(controls: Sequence[Control]) -> None:
    for control in controls:
        print(f"{control.id}\t{control.requirement}\t{' '.join(control.tests)}")


def _try(controls: Sequence[Control], copy: checkout.Checkout) -> Exit:
    if not removals.all_pass(copy, controls):
        return _complain("the tests fail, or are not there, with every control in place")
    progress = track(controls, "controls", console=Console(stderr=True))
    verdicts = {control.id: removals.try_without(copy, control) for control in progress}
    for control in controls:
        print(f"{verdicts[control.id]:9}  {control.id:14}  {control.requirement}")
    unnoticed = sum(verdict is not Verdict.NOTICED for verdict in verdicts.values())
    print(f"{len(controls) - unnoticed} of {len(controls)} removals were noticed")
    return Exit.UNNOTICED if unnoticed else Exit.NOTICED


def _complain(line: str) -> Exit:
    print(f"controls: {line}", file=sys.stderr)
    return Exit.USAGE


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)
def main(
    ids: Annotated[
        list[str] | None, typer.Argument(help="which controls; all where none is named")
    ] = None,
    only_list: Annotated[  # noqa: FBT002 - how typer declares a switch
        bool, typer.Option("--list", help="print id, requirement and tests of each, try nothing")
    ] = False,
) -> None:
    """Take each control out of a copy of the checkout and see that its tests notice."""
    raise typer.Exit(run(ids or [], only_list=only_list))


if __name__ == "__main__":
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
