"""Run a subcommand of `speech` to its end in this process.

Used by the tests of the tools: most of the time of a process of its own would go into its imports.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import typer
from typer.testing import CliRunner


@dataclass(frozen=True)
class Done:
    """How it ended."""

    returncode: int
    stdout: str
    stderr: str


def invoke(app: typer.Typer, *arguments: object, env: Mapping[str, str] | None = None) -> Done:
    """Run it with these arguments; an exception other than an exit is raised."""
    result = CliRunner().invoke(app, list(map(str, arguments)), env=env)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)
