"""`scripts/release`: one version everywhere, a dated changelog, and nothing done unasked."""

import re
from datetime import date

import pytest
from release_rules import (
    CHANGELOG,
    PLACES,
    Release,
    ReleaseError,
    changed,
    current_version,
    difference,
)
from speech_gateway import __version__
from support import checkout
from support.checkout import ROOT, RUN_SECONDS, Checkout

FILES = {path: (ROOT / path).read_text() for path in (*PLACES, CHANGELOG)}
REPETITION = re.compile(r"""(?<!\w)(?:__version__|VERSION)(?: = |[=:]-?)"?\d+\.\d+""")
DAY = date(2026, 2, 3)
HEAD = "# Changelog\n\nWhat has changed.\n"
CANDIDATES = frozenset({".py", ".yml", ".yaml", ".toml", ".example", ".sh", ""})


def at(version: str, changelog: str) -> dict[str, str]:
    """Return the repository's files as if this were the current version."""
    return {path: form.format(version) for path, form in PLACES.items()} | {CHANGELOG: changelog}


# The version


def test_every_place_names_the_same_version():
    """What cannot be derived from the gateway's `__version__` does not differ from it."""
    assert current_version(FILES) == Release(__version__).version


def test_no_other_file_repeats_the_version():
    """A repetition that a release does not know would stay behind."""
    repeating = {
        str(path)
        for path in checkout.files()
        if path.suffix in CANDIDATES and "tests" not in path.parts
        if REPETITION.search((ROOT / path).read_text())
    }
    assert repeating == set(PLACES)


def test_a_place_that_differs_is_named():
    """A version bumped by hand in one place alone is not released."""
    files = at("0.3.0-dev", HEAD) | {"docker-compose.yml": "x: ${VERSION:-0.2.0}\n"}
    with pytest.raises(ReleaseError, match=r"^docker-compose\.yml says 0\.2\.0, .* 0\.3\.0-dev: "):
        current_version(files)


def test_a_place_without_the_version_is_named():
    """Somebody has moved it: the release would forget it."""
    with pytest.raises(ReleaseError, match=r"^\.env\.example: expected the version, as #VERSION=…"):
        current_version(at("0.3.0-dev", HEAD) | {".env.example": "#VERSION=\n"})


@pytest.mark.parametrize("wrong", ["", "1.0", "v0.3.0", "0.3.0.dev0", "0.3.0-rc1", "01.0.0", "x"])
def test_what_is_no_version_here_is_refused(wrong: str):
    """PEP 440 and SemVer allow more than this repository uses."""
    with pytest.raises(ReleaseError, match=r"is no version here: expected MAJOR\.MINOR\.PATCH"):
        Release(wrong)


@pytest.mark.parametrize("low", ["0.3.0-dev", "0.2.9", "0.3.0"])
def test_a_version_that_is_not_higher_is_refused(low: str):
    """Versions go up; 0.3.0-dev comes before 0.3.0."""
    current = "0.3.0-dev" if low == "0.3.0-dev" else "0.3.0"
    with pytest.raises(ReleaseError, match=rf"^{low} is not above the current {current}$"):
        changed(at(current, HEAD), Release(low), DAY)


# What changes


def test_a_release_changes_every_place_and_dates_the_notes():
    """All files that name the version, and the changelog's first section."""
    notes = f"{HEAD}\n## [Unreleased]\n\n### Added\n\n- A thing.\n\n## [0.2.0] - 2026-01-01\n"
    assert changed(at("0.3.0-dev", notes), Release("0.3.0"), DAY) == at(
        "0.3.0", notes.replace("## [Unreleased]", "## [0.3.0] - 2026-02-03")
    )


def test_opening_a_version_adds_an_empty_section_for_its_notes():
    """What was released stays as it is."""
    notes = f"{HEAD}\n## [0.3.0] - 2026-02-03\n\n- A thing.\n"
    opened = f"{HEAD}\n## [Unreleased]\n\n## [0.3.0] - 2026-02-03\n\n- A thing.\n"
    assert changed(at("0.3.0", notes), Release("0.4.0-dev"), DAY) == at("0.4.0-dev", opened)
    assert changed(at("0.4.0-dev", opened), Release("1.0.0-dev"), DAY) == at("1.0.0-dev", opened)


def test_links_follow_their_sections():
    """Where the changelog has links at its end, each names the right range."""
    unreleased = f"{HEAD}\n## [Unreleased]\n\n- A thing.\n\n"
    released = f"{HEAD}\n## [0.3.0] - 2026-02-03\n\n- A thing.\n\n"
    opened = released.replace("## [0.3.0]", "## [Unreleased]\n\n## [0.3.0]")
    older = "[0.2.0]: https://x.example/commits/v0.2.0\n"
    range_ = "https://x.example/compare/v0.2.0..."
    before = f"{unreleased}[Unreleased]: {range_}HEAD\n{older}"
    after = f"{released}[0.3.0]: {range_}v0.3.0\n{older}"
    next_ = f"{opened}[Unreleased]: https://x.example/compare/v0.3.0...HEAD\n"
    assert changed(at("0.3.0-dev", before), Release("0.3.0"), DAY)[CHANGELOG] == after
    assert (
        changed(at("0.3.0", after), Release("0.4.0-dev"), DAY)[CHANGELOG]
        == f"{next_}[0.3.0]: {range_}v0.3.0\n{older}"
    )


@pytest.mark.parametrize(
    "empty",
    [
        "## [Unreleased]\n",
        "## [Unreleased]\n\n### Added\n\n## [0.2.0] - 2026-01-01\n\n- Old.\n",
    ],
)
def test_a_release_without_notes_is_refused(empty: str):
    """A version that changes nothing for anybody is none."""
    with pytest.raises(ReleaseError, match=r"^CHANGELOG\.md: nothing is noted under ## \[Unrel"):
        changed(at("0.3.0-dev", f"{HEAD}\n{empty}"), Release("0.3.0"), DAY)


def test_a_changelog_of_another_form_is_refused():
    """Neither release nor opening guesses where the notes are."""
    with pytest.raises(ReleaseError, match=r"^CHANGELOG\.md: expected a section ## \[Unreleased\]"):
        changed(at("0.3.0-dev", HEAD), Release("0.3.0"), DAY)
    with pytest.raises(ReleaseError, match=r"^CHANGELOG\.md: expected a section for each release"):
        changed(at("0.3.0", HEAD), Release("0.4.0-dev"), DAY)


def test_the_difference_names_what_changes_alone():
    """Unchanged files and lines far away are left out."""
    before = {"a": "1\n2\n3\n4\n5\n6\n", "b": "same\n"}
    after = {"a": "1\n2\n3\n4\n5\nsix\n", "b": "same\n"}
    assert difference(before, after) == (
        "--- a/a\n+++ b/a\n@@ -3,4 +3,4 @@\n 3\n 4\n 5\n-6\n+six\n"
    )


# The script, on a copy

NOTES = f"{HEAD}\n## [Unreleased]\n\n### Added\n\n- A thing.\n"
LOCK = "services/gateway/requirements.lock"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Make a repository of the files as they are now, at a version of its own."""
    repository = checkout.copy(tmp_path_factory.mktemp("release"))
    current = current_version(FILES)
    for path, form in PLACES.items():
        bumped = FILES[path].replace(form.format(current), form.format("8.9.0-dev"))
        (repository.root / path).write_text(bumped)
    (repository.root / CHANGELOG).write_text(NOTES)
    repository.commit("Begin")
    return repository


@pytest.fixture
def clean(copy: Checkout) -> Checkout:
    """Return the copy as it was at first."""
    beginning = copy.git("rev-list", "--max-parents=0", "HEAD").strip()
    copy.git("reset", "--quiet", "--hard", beginning)
    copy.git("clean", "--quiet", "--force", "-d")
    return copy


def release(repository: Checkout, *arguments: str) -> tuple[int, str, str]:
    """Run the script there; return its exit code and what it says."""
    return repository.script("scripts/release", *arguments)


def on_a_copy(test):
    """Mark a test that makes a `.venv` in a copy."""
    return pytest.mark.pipeline(pytest.mark.timeout(3 * RUN_SECONDS)(test))


@on_a_copy
def test_by_default_it_only_shows_what_write_would_change(clean: Checkout):
    """The difference that is shown, applied, is what --write leaves; nothing else is said."""
    code, shown, said = release(clean, "8.9.0")
    assert (code, said) == (
        0,
        "nothing is changed yet: scripts/release 8.9.0 --write does it\n",
    )
    assert clean.git("status", "--porcelain") == ""
    assert release(clean, "8.9.0", "--write", "--tests", "true")[0] == 0
    (clean.root / "dist").mkdir(exist_ok=True)  # ignored by git
    (clean.root / "dist" / "shown.diff").write_text(shown)
    clean.git("apply", "--reverse", "dist/shown.diff")
    assert clean.git("status", "--porcelain") == ""


@on_a_copy
def test_a_release_is_made_up_to_the_commit(clean: Checkout):
    """Version, changelog, locks and tests; what is left to do is printed, and not done."""
    lock = clean.root / LOCK
    whole = lock.read_text()
    lock.write_text(whole.partition("\n")[2])
    clean.git("commit", "--quiet", "--all", "--message", "Spoil a lock")
    before = clean.git("rev-parse", "HEAD")
    code, out, said = release(
        clean, "8.9.0", "--write", "--tests", ".venv/bin/pytest -q tests/test_release.py -k place"
    )
    assert (code, said) == (0, "")
    lines = out.splitlines()
    assert lines[:3] == [
        "== scripts/lock",
        f"{LOCK}: written",
        "== .venv/bin/pytest -q tests/test_release.py -k place",
    ]
    assert lines[-6:] == [
        "== left to do:",
        "git diff",
        'git commit --all --message "Release 8.9.0"',
        'git tag --annotate v8.9.0 --message "Release 8.9.0"',
        "git push --follow-tags",
        "scripts/release 8.10.0-dev --write",
    ]
    assert lock.read_text() == whole
    assert set(clean.git("diff", "--name-only").split()) == {*PLACES, CHANGELOG, LOCK}
    assert re.search(
        r"^## \[8\.9\.0\] - \d{4}-\d\d-\d\d\n\n### Added\n\n- A thing\.$",
        (clean.root / CHANGELOG).read_text(),
        re.MULTILINE,
    )
    assert (clean.git("rev-parse", "HEAD"), clean.git("tag")) == (before, "")


@on_a_copy
def test_what_is_installed_bears_the_new_version(clean: Checkout):
    """The distributions' metadata follow, in an environment that was there before."""
    assert release(clean, "8.9.0", "--write", "--tests", "true")[0] == 0
    told = "from importlib.metadata import version as v; print(*map(v, ({})))"
    members = "'speech-gateway', 'speech-asr', 'speech-lib'"
    done = clean.run(".venv/bin/python", "-c", told.format(members))
    assert done.stdout.split() == ["8.9.0"] * 3


@on_a_copy
def test_the_next_version_is_opened_after_a_release(clean: Checkout):
    """As the last line of a release says; there is nothing to tag then."""
    assert release(clean, "8.9.0", "--write", "--tests", "true")[0] == 0
    clean.commit("Release 8.9.0")
    code, out, _ = release(clean, "8.10.0-dev", "--write", "--tests", "true")
    assert (code, out.splitlines()[-4:]) == (
        0,
        [
            "== left to do:",
            "git diff",
            'git commit --all --message "Open 8.10.0-dev"',
            "git push",
        ],
    )
    assert "\n## [Unreleased]\n\n## [8.9.0] - " in (clean.root / CHANGELOG).read_text()


@on_a_copy
def test_a_failed_test_ends_it_and_keeps_the_changes(clean: Checkout):
    """The line says how to undo them, and nothing is said about tagging."""
    code, out, said = release(clean, "8.9.0", "--write", "--tests", "false --hard")
    assert (code, out, said) == (
        1,
        "== scripts/lock\n== false --hard\n",
        "release: false --hard failed; the changes stay, `git restore .` undoes them\n",
    )
    assert clean.git("diff", "--name-only") != ""


@on_a_copy
def test_what_cannot_be_released_is_refused_in_one_line(clean: Checkout):
    """Exit code 2, and nothing is changed."""
    refused = {
        ("8.9",): "'8.9' is no version here: expected MAJOR.MINOR.PATCH, or with -dev behind it ",
        ("8.8.0", "--write"): "8.8.0 is not above the current 8.9.0-dev",
        ("8.9.0", "--tests", " "): "--tests: expected a command, as a shell takes it",
    }
    for arguments, line in refused.items():
        code, out, said = release(clean, *arguments)
        assert (code, out, said.count("\n")) == (2, "", 1)
        assert said.startswith(f"release: {line}")
    assert clean.git("status", "--porcelain") == ""


@on_a_copy
def test_changes_that_are_not_committed_are_not_released(clean: Checkout):
    """A new file counts too: the tests would see it, and the tag would not have it."""
    (clean.root / "new.txt").touch()
    (clean.root / "README.md").write_text("")
    assert release(clean, "8.9.0", "--write") == (
        2,
        "",
        "release: there are changes that are not committed: README.md and 1 more\n",
    )


@on_a_copy
def test_without_git_it_says_so(clean: Checkout):
    """The environment is there by then: only git is missing."""
    assert release(clean, "8.9.0")[0] == 0
    python = str(clean.root / ".venv" / "bin" / "python")
    done = clean.run("env", "PATH=/nowhere", python, "scripts/release.py", "8.9.0")
    assert (done.returncode, done.stderr) == (2, "release: needs git, found none on PATH\n")
