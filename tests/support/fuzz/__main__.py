"""Give one reader of foreign bytes inputs that nobody thought of, led by the coverage of its code.

    cd tests && python -m support.fuzz TARGET [--seconds N] [--corpus DIR] [--findings DIR]
    cd tests && python -m support.fuzz TARGET --input FILE

Needs atheris (Linux on x86-64, the group `fuzz`). An input that breaks the target is kept, and
tried again by `--input`. The exit code says whether there was one; `--help` lists the codes and the
targets.
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Annotated

import typer

from support.fuzz.targets import TARGETS, Target

ENGINE = [sys.executable, "-m", "support.fuzz.engine"]
TARGETS_MODULE = "support.fuzz.targets"
SLOW_INPUT_SECONDS = 5
MAX_RSS_MB = 1024
SHOWN_LINES = 40

_COVERED = re.compile(r"cov: (\d+)")
_RUNS = re.compile(r"stat::number_of_executed_units: +(\d+)")
_KEPT = re.compile(r"Test unit written to (\S+)")


class Exit(IntEnum):
    """What came of it."""

    HELD = 0
    BROKEN = 1
    USAGE = 2
    NO_ENGINE = 3


EPILOG = """\
Exit codes:

0  no input broke the target

1  one did; the last line says where it is kept

2  wrong usage

3  atheris is not installed

Targets:

""" + "\n\n".join(f"{name}  {target.what}" for name, target in TARGETS.items())

NO_ENGINE = "fuzz: needs atheris: on Linux and x86-64 `uv run --group fuzz` installs it"

Name = StrEnum("Name", [(name, name) for name in TARGETS])  # type: ignore[misc]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Finished:
    """A run of the engine.

    Attributes:
        broken: whether an input broke the target.
        runs: how many inputs were tried.
        covered: how many branches of the code they went through.
        kept: the input that broke it, where it is new.
        said: what the engine and the target said last.
    """

    broken: bool
    runs: int
    covered: int
    kept: Path | None
    said: str

    @classmethod
    def of(cls, code: int, output: str) -> "Finished":
        """Read what libFuzzer says."""
        runs, covered, kept = (found.findall(output)[-1:] for found in (_RUNS, _COVERED, _KEPT))
        return cls(
            broken=code != 0,
            runs=int(runs[0]) if runs else 0,
            covered=int(covered[0]) if covered else 0,
            kept=Path(kept[0]) if kept else None,
            said="\n".join(output.splitlines()[-SHOWN_LINES:]),
        )


@dataclass(frozen=True, slots=True)
class Hunt:
    """How long to look, and where inputs lie.

    Attributes:
        seconds: how long.
        corpus: inputs that went through new branches; those that are there are tried first.
        findings: where inputs that broke the target are put.
    """

    seconds: int
    corpus: Path
    findings: Path

    def options(self, target: Target) -> list[str]:
        """Return libFuzzer's options."""
        return [
            f"-max_total_time={self.seconds}",
            f"-max_len={target.longest}",
            f"-artifact_prefix={self.findings}/",
            f"-timeout={SLOW_INPUT_SECONDS}",
            f"-rss_limit_mb={MAX_RSS_MB}",
            "-print_final_stats=1",
            str(self.corpus),
        ]


def hunt(name: str, target: Target, plan: Hunt, module: str = TARGETS_MODULE) -> Finished:
    """Look for an input that breaks a target of `module`."""
    for folder in (plan.corpus, plan.findings):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (plan.corpus / f"seed-{number}").write_bytes(seed)
    return _engine(module, name, plan.options(target))


def _engine(module: str, name: str, options: Sequence[str]) -> Finished:
    done = subprocess.run(  # noqa: S603 - our own module, no shell
        [*ENGINE, module, name, *options],
        cwd=Path(__file__).parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    return Finished.of(done.returncode, done.stdout)


def try_again(name: str, file: Path, module: str = TARGETS_MODULE) -> Finished:
    """Give a target one input that was kept."""
    return _engine(module, name, [f"-timeout={SLOW_INPUT_SECONDS}", str(file.absolute())])


def report(name: str, finished: Finished) -> Exit:
    """Say what came of a run, and return the exit code."""
    if not finished.broken:
        tried = f"{finished.runs} inputs through {finished.covered} branches"
        print(f"{name}: nothing broke it ({tried})")
        return Exit.HELD
    print(finished.said, file=sys.stderr)
    where = f"; the input is in {finished.kept}" if finished.kept else ""
    print(f"{name}: an input broke it, see above{where}", file=sys.stderr)
    return Exit.BROKEN


@app.command(epilog=EPILOG)
def main(
    target: Annotated[Name, typer.Argument(help="What to give inputs to; see below.")],
    seconds: Annotated[int, typer.Option(min=1, max=86_400, help="How long to look.")] = 60,
    corpus: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Where good inputs lie and are kept; else forgotten."),
    ] = None,
    findings: Annotated[
        Path, typer.Option(file_okay=False, help="Where inputs that broke the target are kept.")
    ] = Path("dist/fuzz"),
    again: Annotated[
        Path | None,
        typer.Option("--input", exists=True, dir_okay=False, help="Try this one input only."),
    ] = None,
) -> None:
    """Look for inputs that break one reader of foreign bytes."""
    if importlib.util.find_spec("atheris") is None:
        print(NO_ENGINE, file=sys.stderr)
        raise typer.Exit(Exit.NO_ENGINE)
    if again is not None:
        raise typer.Exit(report(target, try_again(target, again)))
    with tempfile.TemporaryDirectory() as forgotten:
        plan = Hunt(seconds, (corpus or Path(forgotten)).absolute(), findings.absolute())
        finished = hunt(target, TARGETS[target], plan)
    raise typer.Exit(report(target, finished))


if __name__ == "__main__":
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
