"""Run the Autobahn|Testsuite against the gateway's WebSocket server.

The suite wants its messages back. So it talks to the gateway's own server, with its settings,
connection, admission and handshake, in which an echo stands in the place of the session.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speech_gateway.connection import GatewayConnection
from speech_gateway.errors import Ending
from speech_gateway.server import GatewayServer
from speech_gateway.testing import run_server
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from support.checkout import ROOT

REQUIREMENTS = Path(__file__).parent / "autobahn-requirements.txt"
HOME = ROOT / ".tools" / "autobahn"
IMAGE = "crossbario/autobahn-testsuite"
MISSING = (
    "needs the Autobahn|Testsuite: a Python 2.7 with pip (python2.7 on PATH, or one of pyenv), "
    f"or the Docker image (docker pull {IMAGE})"
)

_START = "import site; site.addsitedir({!r}); from autobahntestsuite.wstest import run; run()"
_RUN_SECONDS = 120
_LOOK_SECONDS = 20


class _Inbox:
    """Keeps what a connection hands over until the echo takes it."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[str | bytes | Ending] = asyncio.Queue()

    def receive(self, message: str | bytes) -> None:
        self.events.put_nowait(message)

    def end(self, ending: Ending) -> None:
        self.events.put_nowait(ending)

    def lost(self) -> None:
        self.events.put_nowait(Ending.DISCONNECT)


class EchoGateway(GatewayServer):
    """The gateway's server, but for what it does with an admitted client's messages."""

    async def _serve_client(self, connection: ServerConnection) -> None:
        assert isinstance(connection, GatewayConnection)
        inbox = _Inbox()
        connection.listen(inbox)
        with suppress(ConnectionClosed):
            while not isinstance(event := await inbox.events.get(), Ending):
                await connection.send(event)
            if event is Ending.RATE_LIMITED:
                await connection.cut(1008, "rate_limited")
            else:
                connection.fail()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the server did in one case.

    Attributes:
        verdict: OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED or FAILED, also for its closing.
        code: The close code that the server sent, if any.
    """

    verdict: str
    code: int | None


def command(folder: Path) -> Sequence[str] | None:
    """Return what runs `wstest` in a folder; None where nothing on this machine can.

    The suite is written for Python 2.7. Where there is one, the suite is installed into `.tools/`,
    once; else its public image is used, if it has been pulled.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = ["python2.7", *map(str, pyenv.glob("versions/2.7*/bin/python2.7"))]
    for python in candidates:
        # Run it: a shim of that name need not have that Python behind it.
        if _succeeds(python, "-m", "pip", "--version"):
            _install(python)
            return python, "-c", _START.format(str(HOME))
    if not _succeeds("docker", "image", "inspect", IMAGE):
        return None
    volume = (f"--volume={folder}:/suite", "--workdir=/suite")
    user = f"--user={os.getuid()}:{os.getgid()}"
    return "docker", "run", "--rm", "--network=host", user, *volume, IMAGE, "wstest"


async def outcomes(wstest: Sequence[str], cases: Sequence[str], folder: Path) -> dict[str, Outcome]:
    """Try `cases` (`"1.*"` is all of section 1) and return how each ended.

    Args:
        wstest: What `command` returned for this folder.
        cases: Numbers, or patterns of them.
        folder: Where the suite leaves its own pages, under `report`.
    """
    async with run_server(kind=EchoGateway) as server:
        agent = {"agent": "gateway", "url": server.url}
        spec = {"outdir": "report", "servers": [agent], "cases": list(cases), "exclude-cases": []}
        (folder / "spec.json").write_text(json.dumps(spec | {"exclude-agent-cases": {}}))
        suite = await asyncio.create_subprocess_exec(
            *wstest, "-m", "fuzzingclient", "-s", "spec.json", cwd=folder
        )
        try:
            await asyncio.wait_for(suite.wait(), _RUN_SECONDS)
        finally:
            if suite.returncode is None:
                suite.terminate()  # `docker run` passes it on to the container
                await suite.wait()
    told = json.loads((folder / "report" / "index.json").read_text())
    return {case: _outcome(each) for case, each in told["gateway"].items()}


def _outcome(told: Mapping[str, Any]) -> Outcome:
    """Return one verdict for what happened before the close, and for the close."""
    good = told["behaviorClose"] in {"OK", "INFORMATIONAL"}
    return Outcome(told["behavior"] if good else "FAILED", told["remoteCloseCode"])


def _install(python: str) -> None:
    if HOME.exists():
        return
    part = HOME.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    options = ("--quiet", "--no-deps", "--target", str(part), "--requirement", str(REQUIREMENTS))
    subprocess.run([python, "-m", "pip", "install", *options], check=True)  # noqa: S603
    part.rename(HOME)


def _succeeds(*words: str) -> bool:
    try:
        ended = subprocess.run(  # noqa: S603 - no shell
            words, check=False, capture_output=True, timeout=_LOOK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0
