"""`scripts/lock`: what the images install is what the members ask for, pinned and hashed."""

import re
from pathlib import Path

import pytest
from pipeline_tools import checkout
from pipeline_tools.checkout import ROOT, RUN_SECONDS, Checkout

BUILD_LOCK = ROOT / "services" / "build-requirements.lock"
LOCKS = [
    ROOT / "services" / "gateway" / "requirements.lock",
    ROOT / "services" / "asr" / "requirements.lock",
    ROOT / "services" / "gateway" / "requirements-otlp.lock",
    ROOT / "services" / "asr" / "requirements-otlp.lock",
    BUILD_LOCK,
]
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


@pytest.fixture
def copy(tmp_path: Path) -> Checkout:
    """Copy the repository's files, so that no `.venv` that is in use is touched."""
    return checkout.copy(tmp_path)


def lock(copy: Checkout, *arguments: str) -> tuple[int, str, str]:
    """Run the script there; return its exit code and what it says."""
    return copy.script("scripts/lock", *arguments)


@pytest.mark.pipeline
@pytest.mark.timeout(2 * RUN_SECONDS)
def test_the_locks_are_up_to_date(copy: Checkout):
    """The committed locks are what `scripts/lock` writes."""
    assert lock(copy, "--check") == (0, "", "")


@pytest.mark.pipeline
@pytest.mark.timeout(3 * RUN_SECONDS)
def test_a_changed_dependency_is_noticed_and_written(copy: Checkout):
    """A lock that lacks a dependency is named; after it has been written, nothing is."""
    gateway = copy.root / "services" / "gateway"
    member = gateway / "pyproject.toml"
    before = member.read_text()
    member.write_text(before.replace("dependencies = [", 'dependencies = ["packaging>=24",', 1))
    changed = [gateway / "requirements.lock", gateway / "requirements-otlp.lock"]
    assert "packaging" not in names(changed[0])
    due = {
        f"{each.relative_to(copy.root)}: out of date, scripts/lock writes it" for each in changed
    }
    code, out, said = lock(copy, "--check")
    assert (code, out, set(said.splitlines())) == (1, "", due)
    code, out, said = lock(copy)
    written = {f"{each.relative_to(copy.root)}: written" for each in changed}
    assert (code, set(out.splitlines()), said) == (0, written, "")
    assert [each for each in changed if "packaging" not in names(each)] == []
    assert lock(copy, "--check") == (0, "", "")


def test_what_it_does_not_know_is_refused():
    """An argument that is none gets one line and exit code 2, before anything is made."""
    assert lock(Checkout(ROOT), "--chek") == (2, "", "usage: scripts/lock [--check]\n")
