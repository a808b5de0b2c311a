"""`scripts/lock`: the versions that were tested are installed, whatever the index has since."""

import hashlib
import re
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import locks
import pytest
from locks import BUILD_CONSTRAINTS, CONSTRAINTS, MANIFEST, LockError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import checkout
from support.checkout import ROOT, RUN_SECONDS, UV_LOCK, Checkout

BUILD_LOCK = ROOT / "services" / "build-requirements.lock"
TOOLS_LOCK = ROOT / "tools" / "requirements.lock"
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


def test_the_build_lock_holds_the_backend_alone():
    """What builds the members needs nothing else."""
    assert names(BUILD_LOCK) == {"flit-core"}


def test_no_image_holds_what_another_needs():
    """The gateway has no recogniser, the recogniser no WebSocket, neither a test's library."""
    gateway, asr = (names(ROOT / "services" / each / "requirements.lock") for each in SERVICES)
    assert {"websockets", "confluent-kafka"} <= gateway
    assert {"pocketsphinx", "confluent-kafka"} <= asr
    assert gateway & {"pocketsphinx", "pytest", "docker", "flit-core"} == set()
    assert asr & {"websockets", "pytest", "docker", "flit-core"} == set()


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


def test_the_tools_are_locked_without_services_and_tests():
    """An image of tools holds what reads topics and speaks to a gateway, and no more."""
    held = names(TOOLS_LOCK)
    assert {"aiohttp", "confluent-kafka", "rich", "soundfile", "typer", "websockets"} <= held
    assert held & {"pocketsphinx", "matplotlib", "pytest", "docker", "atheris", "mypy"} == set()


def settings(root: Path) -> dict[str, list[str]]:
    """Return what uv is told of versions."""
    uv = tomllib.loads((root / MANIFEST).read_text())["tool"]["uv"]
    return {key: uv[key] for key in (CONSTRAINTS, BUILD_CONSTRAINTS)}


def pinned(root: Path) -> dict[str, str]:
    """Return the version of each package that this Python gets on this machine."""
    pins = map(Requirement, settings(root)[CONSTRAINTS])
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in here}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_images_hold_the_versions_that_developers_test(lock: Path):
    """What an image installs is among the pins of the workspace, version for version."""
    versions = {each.partition(" ")[0] for each in requirements(lock)}
    pins = {each.partition(" ")[0] for each in settings(ROOT)[CONSTRAINTS]}
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


def test_a_manifest_without_its_list_is_refused():
    """Nothing is written where the pins would not be found again."""
    with pytest.raises(LockError, match=r"^pyproject\.toml: expected one list x = \[…\], an item"):
        locks.with_list('x = ["a==1"]\n', "x", ["a==2"])


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
def test_the_locks_fit_what_members_and_groups_ask_for(copy: Checkout):
    """Of the committed pins and locks, nothing is missing and nothing too much."""
    assert lock(copy, "--check") == (0, "", "")


@on_a_copy
def test_a_newer_release_moves_neither_locks_nor_check(fresh: Checkout):
    """Pins that fit stay, byte for byte, with their hashes."""
    before = contents(fresh)
    assert lock(fresh, "--check") == (0, "", "")
    assert lock(fresh) == (0, "", "")
    assert contents(fresh) == before


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
def test_an_upgrade_takes_the_newer_release(fresh: Checkout):
    """The same index as in the tests above: this is the command that moves the pins."""
    code, out, said = lock(fresh, "--upgrade")
    assert (code, said) == (0, "")
    assert {f"{MANIFEST}: written", "services/asr/requirements.lock: written"} <= {
        *out.splitlines()
    }
    assert pinned(fresh.root)[NEWER] == NEWEST
    holding = {name for name, text in contents(fresh).items() if f"{NEWER}=={NEWEST} " in text}
    assert holding == {*locks.LOCKS} - {"services/build-requirements.lock"}
    assert lock(fresh, "--check") == (0, "", "")


@on_a_copy
def test_a_pin_that_no_longer_fits_is_named_and_moved_alone(fresh: Checkout):
    """Where a member asks for more than is pinned, everything else stays."""
    before = pinned(ROOT)
    with_dependency(fresh, f"{NEWER}>={NEWEST}")
    code, out, said = lock(fresh, "--check")
    pins = f"lacks {NEWER}=={NEWEST} and holds {NEWER}=={before[NEWER]}; scripts/lock writes it"
    moved = {MANIFEST, *locks.LOCKS} - {"services/build-requirements.lock"}
    assert (code, out, set(said.splitlines())) == (1, "", {f"{name}: {pins}" for name in moved})
    code, out, said = lock(fresh)
    assert (code, set(out.splitlines()), said) == (0, {f"{name}: written" for name in moved}, "")
    assert pinned(fresh.root) == before | {NEWER: NEWEST}
    assert lock(fresh, "--check") == (0, "", "")


@on_a_copy
def test_a_new_dependency_is_named_and_added(copy: Checkout):
    """A lock that lacks it is named, then written, in the version that developers have."""
    gateway = copy.root / "services" / "gateway"
    with_dependency(copy, "packaging>=24")
    changed = [gateway / "requirements.lock", gateway / "requirements-otlp.lock"]
    assert "packaging" not in names(changed[0])
    pin = f"packaging=={pinned(ROOT)['packaging']}"
    due = {
        f"{each.relative_to(copy.root)}: lacks {pin}; scripts/lock writes it" for each in changed
    }
    code, out, said = lock(copy, "--check")
    assert (code, out, set(said.splitlines())) == (1, "", due)
    code, out, said = lock(copy)
    written = {f"{each.relative_to(copy.root)}: written" for each in changed}
    assert (code, set(out.splitlines()), said) == (0, written, "")
    assert [each for each in changed if f"{pin} \\\n" not in each.read_text()] == []


@on_a_copy
def test_what_has_no_hash_is_not_locked(copy: Checkout, release: Path):
    """An image could not install it: nothing is written."""
    before = contents(copy)
    folder = Checkout(copy.root, {"UV_FIND_LINKS": str(release.parent)})
    code, out, said = lock(folder, "--upgrade")
    assert (code, out) == (1, "")
    assert said.endswith(f": the index has no hash of {NEWER}=={NEWEST}\n")
    assert contents(copy) == before


@on_a_copy
def test_what_cannot_be_resolved_is_said(copy: Checkout):
    """Exit code 1, with uv's own reason, and nothing is written."""
    before = contents(copy)
    with_dependency(copy, f"{NEWER}>={NEWEST}.1")
    code, out, said = lock(copy)
    assert (code, out, said.startswith("lock: ")) == (1, "", True)
    assert f"{NEWER}>={NEWEST}.1" in said
    assert contents(copy) == before
