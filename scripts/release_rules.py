"""What a release changes in the repository's files; for scripts/release.py, which writes it.

The gateway's `__version__` is the version of everything. Where it cannot be read from there (a
wheel is built from one member's sources, compose reads no Python), it is repeated: `PLACES` names
every repetition.
Pure: texts go in, texts come out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from difflib import unified_diff

from packaging.version import Version

SOURCE = "services/gateway/src/speech_gateway/__init__.py"
PLACES = {
    SOURCE: '__version__ = "{}"',
    "services/asr/src/speech_asr/__init__.py": '__version__ = "{}"',
    "speech-lib/src/speech_lib/__init__.py": '__version__ = "{}"',
    "tools/src/speech_tools/__init__.py": '__version__ = "{}"',
    "services/asr/Dockerfile": "ARG VERSION={}",
    "services/gateway/Dockerfile": "ARG VERSION={}",
    "services/gateway/edge/Dockerfile": "ARG VERSION={}",
    "tools/Dockerfile": "ARG VERSION={}",
    "docker-compose.yml": "{{VERSION:-{}}}",
    ".env.example": "#VERSION={}",
}
"""Every file that holds the version, and how it stands there."""

CHANGELOG = "CHANGELOG.md"
UNRELEASED = "## [Unreleased]"
SHAPE = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-dev)?")
EXPECTED = "expected MAJOR.MINOR.PATCH, or with -dev behind it what is being worked on"

Files = Mapping[str, str]
"""Texts by their path from the root."""


class ReleaseError(Exception):
    """This cannot be released; the text is the one line for the release manager."""


@dataclass(frozen=True)
class Release:
    """A version, valid once built.

    Attributes:
        version: What it is called, as SemVer has it.
    """

    version: str

    def __post_init__(self) -> None:
        if SHAPE.fullmatch(self.version) is None:
            raise ReleaseError(f"{self.version!r} is no version here: {EXPECTED}")

    @property
    def is_development(self) -> bool:
        """Tell whether it opens the work on a version instead of releasing one."""
        return self.version.endswith("-dev")

    @property
    def tag(self) -> str:
        """What git calls it."""
        return f"v{self.version}"

    @property
    def next_development(self) -> str:
        """The version whose development usually follows."""
        major, minor, _ = Version(self.version).release
        return f"{major}.{minor + 1}.0-dev"

    @property
    def message(self) -> str:
        """What the commit and the tag say."""
        verb = "Open" if self.is_development else "Release"
        return f"{verb} {self.version}"


def current_version(files: Files) -> str:
    """Return the version that every place names.

    Raises:
        ReleaseError: One has none, or they differ.
    """
    (current, *others) = _found(files, SOURCE)
    for path in PLACES:
        for each in {*others, *_found(files, path)} - {current}:
            raise ReleaseError(f"{path} says {each}, {SOURCE} {current}: expected the same")
    return current


def changed(files: Files, release: Release, day: date) -> dict[str, str]:
    """Return the files as they stand after the release.

    Args:
        files: All of `PLACES`, and the changelog.
        release: What is released, or opened.
        day: When.

    Raises:
        ReleaseError: The version is not above the current one, or nothing is noted as released.
    """
    current = current_version(files)
    if Version(release.version) <= Version(current):
        raise ReleaseError(f"{release.version} is not above the current {current}")
    bumped = {
        path: files[path].replace(form.format(current), form.format(release.version))
        for path, form in PLACES.items()
    }
    notes = files[CHANGELOG]
    after = _opened(notes) if release.is_development else _released(notes, release.version, day)
    return bumped | {CHANGELOG: after}


def difference(before: Files, after: Files) -> str:
    """Return what changes, as `git apply` takes it."""
    return "".join(
        line
        for path in sorted(after)
        for line in unified_diff(
            before[path].splitlines(keepends=True),
            after[path].splitlines(keepends=True),
            f"a/{path}",
            f"b/{path}",
        )
    )


def _found(files: Files, path: str) -> list[str]:
    form = PLACES[path]
    before, after = (re.escape(part) for part in form.format("\0").split("\0"))
    found = re.findall(rf"{before}(\d[\w.+-]*){after}", files[path])
    if not found:
        raise ReleaseError(f"{path}: expected the version, as {form.format('…')}")
    return found


def _released(changelog: str, version: str, day: date) -> str:
    """Give what is noted under Unreleased its version and date, and its link, if there is one."""
    head, heading, notes = changelog.partition(f"{UNRELEASED}\n")
    if not heading:
        raise ReleaseError(f"{CHANGELOG}: expected a section {UNRELEASED}")
    section = re.split(r"^(?:## |\[)", notes, maxsplit=1, flags=re.MULTILINE)[0]
    if re.search(r"^\s*[-*] ", section, re.MULTILINE) is None:
        raise ReleaseError(f"{CHANGELOG}: nothing is noted under {UNRELEASED}")
    linked = re.sub(
        r"^\[Unreleased\]: (\S+)HEAD$", rf"[{version}]: \1v{version}", notes, flags=re.MULTILINE
    )
    return f"{head}## [{version}] - {day.isoformat()}\n{linked}"


def _opened(changelog: str) -> str:
    """Put an empty Unreleased above the last release, unless there is one."""
    if f"{UNRELEASED}\n" in changelog:
        return changelog
    above, newest, below = changelog.partition("\n## [")
    if not newest:
        raise ReleaseError(f"{CHANGELOG}: expected a section for each release, ## [VERSION] - DATE")
    linked = re.sub(
        r"^\[(\d\S*)\]: (\S+/)(?:compare/\S+\.{3}|commits/)v\1$",
        r"[Unreleased]: \2compare/v\1...HEAD\n\g<0>",
        below,
        count=1,
        flags=re.MULTILINE,
    )
    return f"{above}\n{UNRELEASED}\n{newest}{linked}"
