"""`scripts/release`: one version everywhere, a dated changelog, and nothing done unasked."""

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from packaging.version import Version
from speech_gateway import __version__
from support import checkout
from support.checkout import ROOT, RUN_SECONDS, Checkout

REPETITION = re.compile(
    r"""(?<!\w)(?:__version__|VERSION|newTag|^  version)(?: = |: |[=:]-?)"?(\d+\.\d+[\w.-]*)""",
    re.MULTILINE,
)
CANDIDATES = frozenset({".py", ".yml", ".yaml", ".toml", ".example", ".sh", ""})
LOCK = "services/gateway/requirements.lock"


def repetitions(root: Path) -> dict[str, set[str]]:
    """Return the versions that files say that something of ours has, by file."""
    candidates = (path for path in checkout.files() if path.suffix in CANDIDATES)
    told = {
        str(path): set(REPETITION.findall((root / path).read_text()))
        for path in candidates
        if "tests" not in path.parts
    }
    return {path: versions for path, versions in told.items() if versions}


def test_the_version_is_the_same_wherever_it_is_repeated():
    """And a release knows all of these places: another one would stay behind."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["bumpversion"]
    bumped = {each["filename"] for each in settings["files"]} - {"CHANGELOG.md"}
    assert repetitions(ROOT) == {path: {__version__} for path in bumped}
    assert settings["current_version"] == __version__


@pytest.fixture
def copy(tmp_path: Path) -> Checkout:
    """Make a repository of the files as they are now; scripts there use this environment."""
    path = {"PATH": f"{ROOT / '.venv' / 'bin'}:{checkout.path()}", "venv_groups": "none"}
    repository = Checkout(checkout.copy(tmp_path).root, path)
    repository.commit("Begin")
    return repository


def opened(repository: Checkout, part: str) -> str:
    """Return the version that is opened next."""
    done = repository.run("bump-my-version", "show", "--increment", part, "new_version")
    return done.stdout.strip()


@pytest.mark.pipeline
@pytest.mark.timeout(3 * RUN_SECONDS)
def test_a_version_is_opened_and_released_up_to_the_commit(copy: Checkout):
    """By default nothing changes; then every place and lock does, and only a release is dated."""
    coming = opened(copy, "minor")
    assert copy.run("scripts/release", coming).returncode == 0
    assert copy.git("status", "--porcelain") == ""
    failed = copy.run("scripts/release", coming, "--write", "false", "--hard")
    assert failed.returncode == 1
    assert failed.stderr.endswith(
        "release: false --hard failed; the changes stay, `git restore .` undoes them\n"
    )
    assert set().union(*repetitions(copy.root).values()) == {coming}
    assert "CHANGELOG.md" not in copy.git("diff", "--name-only")
    lock = (copy.root / LOCK).read_text()
    (copy.root / LOCK).write_text(lock.partition("\n")[2])
    copy.commit(f"Open {coming}, and spoil a lock")

    released = Version(coming).base_version
    done = copy.run("scripts/release", released, "--write", "git", "diff", "--name-only")
    assert (done.returncode, done.stdout.partition("== left to do:\n")[2].splitlines()) == (
        0,
        [
            "git diff",
            f"git commit --all --message 'Release {released}'",
            f"git tag --annotate v{released} --message 'Release {released}'",
            "git push --follow-tags",
            "scripts/release MAJOR.MINOR.PATCH-dev --write",
        ],
    )
    assert {*repetitions(copy.root), "CHANGELOG.md", LOCK} <= set(done.stdout.splitlines())
    assert set().union(*repetitions(copy.root).values()) == {released}
    assert (copy.root / LOCK).read_text() == lock
    heading = f"## [Unreleased]\n\n## [{released}] - {datetime.now(UTC):%Y-%m-%d}\n\n### "
    assert heading in (copy.root / "CHANGELOG.md").read_text()
    assert (copy.git("log", "--format=%s", "-1"), copy.git("tag")) == (
        f"Open {coming}, and spoil a lock\n",
        "",
    )


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["0.1.0"], f"release: 0.1.0 does not follow {__version__}: expected "),
        (["0.1.0", "--wirte"], "usage: scripts/release VERSION [--write [COMMAND]]"),
    ],
)
def test_what_cannot_be_released_is_refused_in_one_line(
    copy: Checkout, arguments: list[str], line: str
):
    """A version that cannot follow, or an option that is none."""
    wrong = copy.run("scripts/release", *arguments)
    assert (wrong.returncode != 0, wrong.stderr.count("\n")) == (True, 1)
    assert wrong.stderr.startswith(line)


@pytest.mark.pipeline
def test_changes_that_are_not_committed_are_not_released(copy: Checkout):
    """A new file counts too: the tests would see it, and the tag would not have it."""
    (copy.root / "new.txt").touch()
    done = copy.run("scripts/release", opened(copy, "minor"), "--write")
    assert done.stderr == "release: there are changes that are not committed\n"
