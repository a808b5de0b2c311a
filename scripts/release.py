"""Make a release in this checkout, or open the next version: `scripts/release` runs this.

    scripts/release 0.3.0              shows what would change
    scripts/release 0.3.0 --write      changes it, refreshes the locks, runs the tests
    scripts/release 0.4.0-dev --write  opens the next version afterwards

It never commits, tags or pushes: it ends by saying how.
"""

import shlex
import subprocess
import sys
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer
from release_rules import (
    CHANGELOG,
    PLACES,
    Release,
    ReleaseError,
    changed,
    difference,
)

ROOT = Path(__file__).parent.parent

EPILOG = """\
Exit codes:

0  done, or shown

1  the locks could not be refreshed, or a test failed; the changes stay

2  wrong usage: no version that can follow the current one, changes that are not committed, nothing
noted as Unreleased, git is missing

A version with -dev opens the work on it: CHANGELOG.md gets an empty Unreleased. Nothing is ever
committed, tagged or pushed; the last lines say how.
"""


class Exit(IntEnum):
    """What came of it."""

    DONE = 0
    FAILED = 1
    USAGE = 2


def run(version: str, tests: str, *, write: bool) -> Exit:
    """Check, then show or make the release; return the exit code."""
    try:
        release = Release(version)
        command = split_command(tests)
        refuse_uncommitted()
        before = {path: (ROOT / path).read_text(encoding="utf-8") for path in (*PLACES, CHANGELOG)}
        after = changed(before, release, datetime.now(UTC).date())
    except ReleaseError as error:
        return _complain(Exit.USAGE, str(error))
    except OSError as error:
        return _complain(Exit.USAGE, f"cannot read {error.filename}: expected a whole checkout")
    if not write:
        print(difference(before, after), end="")
        print(f"nothing is changed yet: scripts/release {version} --write does it", file=sys.stderr)
        return Exit.DONE
    return make(release, after, command)


def split_command(text: str) -> list[str]:
    """Return the words of a command.

    Raises:
        ReleaseError: It has none, or an open quote.
    """
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words:
        raise ReleaseError("--tests: expected a command, as a shell takes it")
    return words


def refuse_uncommitted() -> None:
    """Refuse a checkout with changes: the release's own could not be told from them.

    Raises:
        ReleaseError: There are some, or git cannot tell.
    """
    try:
        status = subprocess.run(
            ["git", "status", "--porcelain"],  # noqa: S607 - the user's own git
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        ).stdout
    except FileNotFoundError:
        raise ReleaseError("needs git, found none on PATH") from None
    except subprocess.CalledProcessError:
        raise ReleaseError("needs a checkout made by git: git status fails here") from None
    if status:
        first, *others = (line[3:] for line in status.splitlines())
        more = f" and {len(others)} more" if others else ""
        raise ReleaseError(f"there are changes that are not committed: {first}{more}")


def make(release: Release, after: dict[str, str], tests: list[str]) -> Exit:
    """Write the files, refresh the locks, run the tests, and say what is left to do."""
    for path, text in after.items():
        (ROOT / path).write_text(text, encoding="utf-8")
    for command in (["scripts/lock"], tests):
        print(f"== {shlex.join(command)}", flush=True)
        if not _succeeds(command):
            line = f"{shlex.join(command)} failed; the changes stay, `git restore .` undoes them"
            return _complain(Exit.FAILED, line)
    print(next_steps(release))
    return Exit.DONE


def next_steps(release: Release) -> str:
    """Return what the release manager does now."""
    steps = ["git diff", f'git commit --all --message "{release.message}"']
    if release.is_development:
        steps.append("git push")
    else:
        steps += [
            f'git tag --annotate {release.tag} --message "{release.message}"',
            "git push --follow-tags",
            f"scripts/release {release.next_development} --write",
        ]
    return "\n".join(("== left to do:", *steps))


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, check=False, cwd=ROOT).returncode == 0  # noqa: S603 - given by the user
    except OSError:
        return False


def _complain(code: Exit, line: str) -> Exit:
    print(f"release: {line}", file=sys.stderr)
    return code


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)
def main(
    version: Annotated[str, typer.Argument(help="what is released (0.3.0), or opened (0.4.0-dev)")],
    write: Annotated[  # noqa: FBT002 - how typer declares a switch
        bool, typer.Option("--write", help="make the changes; by default they are only shown")
    ] = False,
    tests: Annotated[
        str, typer.Option(metavar="COMMAND", help="what must succeed on the changed checkout")
    ] = "scripts/test",
) -> None:
    """Bump the version, date the changelog, refresh the locks and run the tests."""
    raise typer.Exit(run(version, tests, write=write))


if __name__ == "__main__":
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
