"""Find the Autobahn|Testsuite on this machine, run it against a WebSocket server, read its report.

Used by `conformance`. The suite is written for Python 2.7: where that is found, the suite is
installed beside it in an environment of its own, once; else its public image is used, if it is
already here.
"""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).parent / "autobahn-requirements.txt"
TOOLS = ROOT / ".tools"
IMAGE = "crossbario/autobahn-testsuite"
MISSING = (
    "needs the Autobahn|Testsuite: a Python 2.7 (python2.7 on PATH, or one of pyenv), "
    f"or the Docker image (docker pull {IMAGE})"
)

_AGENT = "server"
_OUTPUT = "output.txt"
_START = "from autobahntestsuite.wstest import run; run()"
_INSTALL_SECONDS = 180
_RUN_SECONDS = 120
_LOOK_SECONDS = 20


class AutobahnError(Exception):
    """The suite could not be installed or run; the text is the one line for the user."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a server did in one case.

    Attributes:
        verdict: OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED or FAILED, also for its closing.
        code: The close code that the server sent, if any.
    """

    verdict: str
    code: int | None


Suite = Callable[[Path], Sequence[str]]
"""A suite that can be run: the command that is `wstest` in a directory, without its arguments."""


def find() -> Suite | None:
    """Return the suite of this machine, installed if need be; None where nothing can run it.

    Raises:
        AutobahnError: if it cannot be installed although there is a Python for it.
    """
    if python := next(filter(_is_python_2, _candidates()), None):
        own = str(_install(python) / "bin" / "python")
        return lambda _: (own, "-c", _START)
    return _in_container if _has_image() else None


async def run(suite: Suite, url: str, cases: Sequence[str], directory: Path) -> dict[str, Outcome]:
    """Try `cases` (`"1.*"` is all of section 1) on the server at `url`.

    Args:
        suite: What `find` returned.
        url: Of a server on this machine that echoes every message.
        cases: Numbers, or patterns of them.
        directory: Where the suite writes its report and its output.

    Raises:
        AutobahnError: if it ends without a report.
        TimeoutError: if it does not end.
    """
    spec = {
        "outdir": "report",
        "servers": [{"agent": _AGENT, "url": url}],
        "cases": list(cases),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (directory / "spec.json").write_text(json.dumps(spec))
    report = directory / "report" / "index.json"
    report.unlink(missing_ok=True)
    command = [*suite(directory), "-m", "fuzzingclient", "-s", "spec.json"]
    async with asyncio.timeout(_RUN_SECONDS), _running(command, directory) as process:
        code = await process.wait()
    if code != 0 or not report.exists():
        said = _last_line((directory / _OUTPUT).read_text(errors="replace"))
        raise AutobahnError(f"the suite ended with code {code} and no report: {said}")
    return read(report.read_text())


def read(report: str) -> dict[str, Outcome]:
    """Return the outcome of each case from the suite's `index.json`.

    Raises:
        AutobahnError: if the suite never reached the server.
    """
    agents = json.loads(report)
    if _AGENT not in agents:
        raise AutobahnError("the suite did not reach the server")
    return {
        case: Outcome(_verdict(told["behavior"], told["behaviorClose"]), told["remoteCloseCode"])
        for case, told in agents[_AGENT].items()
    }


def _verdict(behavior: str, closing: str) -> str:
    """Return one verdict for what happened before the close, and for the close."""
    return behavior if closing in {"OK", "INFORMATIONAL"} else "FAILED"


@asynccontextmanager
async def _running(
    command: Sequence[str], directory: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    with (directory / _OUTPUT).open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()  # `docker run` passes it on to the container
            await process.wait()


# Where it is


def _candidates() -> Iterator[str]:
    if found := shutil.which("python2.7"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(pyenv.glob("versions/2.7*/bin/python2.7"), reverse=True))


def _is_python_2(candidate: str) -> bool:
    """Run it: a shim of that name need not have that Python behind it."""
    code = "import sys; sys.exit(sys.version_info[:2] != (2, 7))"
    return _succeeds([candidate, "-c", code])


def _has_image() -> bool:
    docker = shutil.which("docker")
    return docker is not None and _succeeds([docker, "image", "inspect", IMAGE])


def _succeeds(command: Sequence[str]) -> bool:
    try:
        ended = subprocess.run(  # noqa: S603 - no shell
            command, check=False, capture_output=True, timeout=_LOOK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


def _in_container(directory: Path) -> Sequence[str]:
    return (
        *("docker", "run", "--rm", "--network", "host"),
        *("--user", f"{os.getuid()}:{os.getgid()}"),
        *("--volume", f"{directory}:/conformance", "--workdir", "/conformance"),
        *(IMAGE, "wstest"),
    )


def _install(python: str) -> Path:
    """Return an environment of `python` that holds the suite, as it is pinned at the moment."""
    wanted = hashlib.sha256(python.encode() + REQUIREMENTS.read_bytes()).hexdigest()
    home = TOOLS / f"autobahn-{wanted[:8]}"
    whole = home / "installed"
    if not whole.exists():
        print("installing the Autobahn|Testsuite into .tools/", file=sys.stderr)
        _must([sys.executable, "-m", "virtualenv", "--clear", "--python", python, str(home)])
        pip = (str(home / "bin" / "pip"), "--disable-pip-version-check", "install")
        _must([*pip, "--no-deps", "--requirement", str(REQUIREMENTS)])
        whole.touch()
    return home


def _must(command: Sequence[str]) -> None:
    try:
        ended = subprocess.run(  # noqa: S603 - no shell
            command, check=False, capture_output=True, text=True, timeout=_INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise AutobahnError("cannot install the Autobahn|Testsuite: it takes too long") from None
    if ended.returncode != 0:
        said = _last_line(ended.stderr or ended.stdout)
        raise AutobahnError(f"cannot install the Autobahn|Testsuite: {said}")


def _last_line(said: str) -> str:
    return (said.strip().splitlines() or ["it said nothing"])[-1]
