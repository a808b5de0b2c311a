"""`scripts/lock`: what the images install is what the members ask for, pinned and hashed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD_LOCK = ROOT / "services" / "build-requirements.lock"
LOCKS = [
    ROOT / "services" / "gateway" / "requirements.lock",
    ROOT / "services" / "asr" / "requirements.lock",
    BUILD_LOCK,
]
RUN_SECONDS = 110
REQUIREMENT = re.compile(
    r"[a-z0-9-]+==[^\s;]+(?: ; [^\\]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+"
)

needs_uv_lock = pytest.mark.skipif(
    not (ROOT / "uv.lock").exists(), reason="no uv.lock: `uv sync --all-packages` makes it"
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
    gateway, asr = names(LOCKS[0]), names(LOCKS[1])
    assert {"websockets", "confluent-kafka"} <= gateway
    assert {"pocketsphinx", "confluent-kafka"} <= asr
    assert gateway & {"pocketsphinx", "pytest", "docker", "flit-core"} == set()
    assert asr & {"websockets", "pytest", "docker", "flit-core"} == set()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of all that the locks depend on."""
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("speech-lib", "services", "scripts"):
        ignored = shutil.ignore_patterns("tests", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    return tmp_path


def lock(checkout: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the script there; return its exit code and what it says."""
    done = subprocess.run(  # noqa: S603 - our own script
        [str(checkout / "scripts" / "lock"), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    said = done.stderr.replace(
        "making .venv (the first time this downloads the dependencies)\n", ""
    )
    return done.returncode, done.stdout, said


@needs_uv_lock
@pytest.mark.pipeline
@pytest.mark.timeout(2 * RUN_SECONDS)
def test_the_locks_are_up_to_date(checkout: Path):
    """The committed locks are what `scripts/lock` writes."""
    assert lock(checkout, "--check") == (0, "", "")


@needs_uv_lock
@pytest.mark.pipeline
@pytest.mark.timeout(3 * RUN_SECONDS)
def test_a_changed_dependency_is_noticed_and_written(checkout: Path):
    """A lock that lacks a dependency is named; after it has been written, nothing is."""
    member = checkout / "services" / "gateway" / "pyproject.toml"
    before = member.read_text()
    member.write_text(before.replace("dependencies = [", 'dependencies = ["packaging>=24",', 1))
    changed = checkout / "services" / "gateway" / "requirements.lock"
    assert "packaging" not in names(changed)
    assert lock(checkout, "--check") == (
        1,
        "",
        "services/gateway/requirements.lock: out of date, scripts/lock writes it\n",
    )
    assert lock(checkout) == (0, "services/gateway/requirements.lock: written\n", "")
    assert "packaging" in names(changed)
    assert lock(checkout, "--check") == (0, "", "")


def test_what_it_does_not_know_is_refused():
    """An argument that is none gets one line and exit code 2, before anything is made."""
    assert lock(ROOT, "--chek") == (2, "", "usage: scripts/lock [--check]\n")
