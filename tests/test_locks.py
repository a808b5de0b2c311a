"""`scripts/lock`: the versions that were tested are installed, whatever the index has since."""

import hashlib
import re
import runpy
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import checkout
from support.checkout import ROOT, RUN_SECONDS, UV_LOCK, Checkout

locks = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "locks.py")))
MANIFEST = locks.MANIFEST
LOCKS = [ROOT / name for name in locks.LOCKS]
SERVICES = ("gateway", "asr")
REQUIREMENT = re.compile(
    r"[a-z0-9-]+==[^\s;]+(?: ; [^\\]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+"
)


def requirements(lock: Path) -> list[str]:
    """Return the requirements of a lock with their hashes, without the comments."""
    lines = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
    return re.split(r"\n(?=\S)", "\n".join(lines))


def names(lock: Path) -> set[str]:
    """Return what a lock pins."""
    return {each.partition("==")[0] for each in requirements(lock)}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_every_requirement_is_pinned_and_hashed(lock: Path):
    """There is nothing in a lock but versions with their hashes, so no option and no address."""
    assert [each for each in requirements(lock) if not REQUIREMENT.fullmatch(each)] == []
    assert "://" not in lock.read_text()


def test_no_image_holds_what_another_needs():
    """The gateway has no recogniser, the recogniser no WebSocket, and none a test's library."""
    gateway, asr = (names(ROOT / "services" / each / "requirements.lock") for each in SERVICES)
    tools = names(ROOT / "tools" / "requirements.lock")
    assert {"websockets", "confluent-kafka"} <= gateway
    assert {"pocketsphinx", "confluent-kafka"} <= asr
    assert {"aiohttp", "confluent-kafka", "rich", "soundfile", "typer", "websockets"} <= tools
    assert gateway & {"pocketsphinx", "pytest", "docker", "flit-core"} == set()
    assert asr & {"websockets", "pytest", "docker", "flit-core"} == set()
    assert tools & {"pocketsphinx", "matplotlib", "pytest", "docker", "flit-core"} == set()
    assert names(ROOT / "services" / "build-requirements.lock") == {"flit-core"}


@pytest.mark.parametrize("service", SERVICES)
def test_what_exports_traces_is_in_a_lock_of_its_own(service: str):
    """The other holds the same versions of all that it has, and nothing of OpenTelemetry."""
    folder = ROOT / "services" / service
    lean, whole = (
        {each.partition(" ")[0] for each in requirements(folder / lock)}
        for lock in ("requirements.lock", "requirements-otlp.lock")
    )
    assert lean < whole
    added = {each.partition("==")[0] for each in whole - lean}
    assert {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"} <= added
    assert [each for each in lean if each.startswith("opentelemetry")] == []


def constraints(root: Path) -> list[str]:
    """Return the pins of the workspace."""
    return tomllib.loads((root / MANIFEST).read_text())["tool"]["uv"][locks.CONSTRAINTS]


def pinned(root: Path) -> dict[str, str]:
    """Return the version of each package that this Python gets on this machine."""
    pins = map(Requirement, constraints(root))
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in here}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_images_hold_the_versions_that_developers_test(lock: Path):
    """What an image installs is among the pins of the workspace, version for version."""
    versions = {each.partition(" ")[0] for each in requirements(lock)}
    pins = {each.partition(" ")[0] for each in constraints(ROOT)}
    assert versions - pins == set()


def test_a_known_version_keeps_its_hashes():
    """Files that an index has got since are not trusted; a new version has all of its own."""

    def entry(name: str, *digits: str) -> str:
        hashes = " \\\n".join(f"    --hash=sha256:{digit * 64}" for digit in digits)
        return f"{name} \\\n{hashes}\n    # via somebody\n"

    old = entry("a==1", "0") + entry("b==1 ; sys_platform == 'win32'", "1")
    new = entry("a==1", "0", "2") + entry("b==2 ; sys_platform == 'win32'", "3", "4")
    kept = entry("a==1", "0") + entry("b==2 ; sys_platform == 'win32'", "3", "4")
    assert locks.with_known_hashes(new, old) == kept


def test_what_it_does_not_know_is_refused():
    """An argument that is none gets one line and exit code 2, before anything is made."""
    usage = "usage: scripts/lock [--check | --upgrade]\n"
    assert lock(Checkout(ROOT), "--chek") == (2, "", usage)
    assert lock(Checkout(ROOT), "--check", "--upgrade") == (2, "", usage)


# The script, on a copy

NEWER = "tenacity"
"""A package of two services, without dependencies, whose newer release the tests make."""
NEWEST = "9999.1"


@pytest.fixture
def copy(tmp_path: Path) -> Checkout:
    """Copy the repository's files, so that no `.venv` that is in use is touched."""
    return checkout.copy(tmp_path)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Build a newer release than is pinned."""
    wheel = tmp_path / "index" / f"{NEWER}-{NEWEST}-py3-none-any.whl"
    wheel.parent.mkdir()
    dist_info = f"{NEWER}-{NEWEST}.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(f"{dist_info}/METADATA", f"Name: {NEWER}\nVersion: {NEWEST}\n")
        file.writestr(f"{dist_info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{dist_info}/RECORD", "")
    return wheel


@pytest.fixture
def index(release: Path) -> Iterator[str]:
    """Serve it, with its hash, beside what the machine's own index has; return the address."""
    digest = hashlib.sha256(release.read_bytes()).hexdigest()
    page = release.parent / "index.html"
    page.write_text(f'<a href="{release.name}#sha256={digest}">{release.name}</a>')
    handler = partial(Quiet, directory=release.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and tells nobody."""

    def log_message(self, *_: object) -> None:
        """Say nothing: the test's output is pytest's."""


@pytest.fixture
def fresh(tmp_path: Path, index: str) -> Checkout:
    """Copy the files as a clone has them, to a machine whose index has the newer release."""
    whole = checkout.copy(tmp_path / "clone")
    (whole.root / UV_LOCK).unlink()
    return Checkout(whole.root, {"UV_FIND_LINKS": index})


def lock(copy: Checkout, *arguments: str) -> tuple[int, str, str]:
    """Run the script there; return its exit code and what it says."""
    return copy.script("scripts/lock", *arguments)


def contents(copy: Checkout) -> dict[str, str]:
    """Return what `scripts/lock` may write."""
    return {name: (copy.root / name).read_text() for name in (MANIFEST, *locks.LOCKS)}


def with_dependency(copy: Checkout, requirement: str) -> None:
    """Let the gateway ask for something more."""
    member = copy.root / "services" / "gateway" / MANIFEST
    before = member.read_text()
    member.write_text(before.replace("dependencies = [", f'dependencies = ["{requirement}",', 1))


def on_a_copy(test):
    """Mark a test that resolves in a copy, or makes a `.venv` there."""
    return pytest.mark.pipeline(pytest.mark.timeout(3 * RUN_SECONDS)(test))


@on_a_copy
def test_pins_move_only_where_they_no_longer_fit(fresh: Checkout):
    """A newer release moves nothing, until a member asks for it; then everything else stays."""
    before, pins = contents(fresh), pinned(ROOT)
    assert lock(fresh, "--check") == (0, "", "")
    assert lock(fresh) == (0, "", "")
    assert contents(fresh) == before
    with_dependency(fresh, f"{NEWER}>={NEWEST}")
    code, out, said = lock(fresh, "--check")
    wrong = f"lacks {NEWER}=={NEWEST} and holds {NEWER}=={pins[NEWER]}; scripts/lock writes it"
    moved = {MANIFEST, *locks.LOCKS} - {"services/build-requirements.lock"}
    assert (code, out, set(said.splitlines())) == (1, "", {f"{name}: {wrong}" for name in moved})
    code, out, said = lock(fresh)
    assert (code, set(out.splitlines()), said) == (0, {f"{name}: written" for name in moved}, "")
    assert pinned(fresh.root) == pins | {NEWER: NEWEST}
    assert lock(fresh, "--check") == (0, "", "")


@on_a_copy
def test_an_upgrade_takes_the_newer_release(fresh: Checkout):
    """The same index as in the test above: this is the command that moves the pins."""
    code, out, said = lock(fresh, "--upgrade")
    assert (code, said) == (0, "")
    assert {f"{MANIFEST}: written", "services/asr/requirements.lock: written"} <= {
        *out.splitlines()
    }
    assert pinned(fresh.root)[NEWER] == NEWEST
    holding = {name for name, text in contents(fresh).items() if f"{NEWER}=={NEWEST} " in text}
    assert holding == {*locks.LOCKS} - {"services/build-requirements.lock"}


@on_a_copy
def test_a_newer_release_is_not_installed(fresh: Checkout):
    """A fresh clone's environment has the pinned versions; `uv run` finds it as it should be."""
    by_uv = 'source scripts/bootstrap && "$(find_uv "$(find_python)")" run python -c pass'
    done = fresh.run("bash", "-c", by_uv)
    assert done.returncode == 0, done.stderr
    installed = fresh.installed()
    assert installed == {name: pinned(ROOT).get(name) for name in installed}
    assert {NEWER, "pytest", "pocketsphinx", "matplotlib", "ruff"} <= installed.keys()
    assert "atheris" not in installed


@on_a_copy
def test_what_cannot_be_locked_is_said(copy: Checkout, release: Path):
    """An image could not install what has no hash, nor what is nowhere: nothing is written."""
    before = contents(copy)
    folder = Checkout(copy.root, {"UV_FIND_LINKS": str(release.parent)})
    code, out, said = lock(folder, "--upgrade")
    assert (code, out) == (1, "")
    assert said.endswith(f": the index has no hash of {NEWER}=={NEWEST}\n")
    with_dependency(copy, f"{NEWER}>={NEWEST}.1")
    code, out, said = lock(copy)
    assert (code, out, said.startswith("lock: ")) == (1, "", True)
    assert f"{NEWER}>={NEWEST}.1" in said
    assert contents(copy) == before
