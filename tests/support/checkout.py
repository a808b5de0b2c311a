"""The repository's own files, and copies of them; for tests of scripts and documents.

A copy is a checkout of its own: scripts make a `.venv` in it, and change its files, without
touching the one that is in use.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
RUN_SECONDS = 110
UV_LOCK = "uv.lock"
"""Not tracked, but with it nothing has to be resolved, so that a copy needs no network."""

_GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    **{f"GIT_{who}_NAME": "A Tester" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "tester@example.org" for who in ("AUTHOR", "COMMITTER")},
}
_PREPARING = re.compile(r"^(?:making \.venv|putting uv) .*\n", re.MULTILINE)
_OWN_UV = ROOT / ".tools" / "bin"
"""Where the checkout has put uv, so that a copy does not install its own."""
_LIST = (
    "from importlib.metadata import distributions as d; "
    "print(*(f'{each.name}=={each.version}' for each in d()))"
)
_MEMBER = "speech-"
"""How the name of each member of the workspace begins."""
_NOT_INHERITED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "venv_groups")
"""Set where a hook of git runs us: in a copy they would name the wrong repository. And what
scripts/test may have asked of its own `.venv`."""


@dataclass(frozen=True)
class Checkout:
    """A copy of the repository's files, tracked or about to be.

    Attributes:
        root: Where it is.
        settings: Variables that commands have there beside the inherited ones.
    """

    root: Path
    settings: dict[str, str] = field(default_factory=dict)

    def run(
        self, *command: str, timeout: float = RUN_SECONDS
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, there; a path is looked up from the copy's root."""
        program = self.root / command[0]
        inherited = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
        return subprocess.run(  # noqa: S603 - commands of our own tests
            [str(program) if program.is_file() else command[0], *command[1:]],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.root,
            env=inherited | _GIT_ENVIRONMENT | {"PATH": path()} | self.settings,
            timeout=timeout,
        )

    def script(self, *command: str) -> tuple[int, str, str]:
        """Run a script of ours; return its exit code, its output, and what it complains of.

        That uv and the copy's `.venv` are being made is left out: whatever comes first says it.
        """
        done = self.run(*command)
        return done.returncode, done.stdout, _PREPARING.sub("", done.stderr)

    def installed(self) -> dict[str, str]:
        """Return what its `.venv` holds beside the members of the workspace: names and versions."""
        done = self.run(".venv/bin/python", "-c", _LIST)
        found = [each.split("==") for each in done.stdout.split()]
        versions = {canonicalize_name(name): version for name, version in found}
        return {k: v for k, v in versions.items() if not k.startswith(_MEMBER)}

    def git(self, *arguments: str) -> str:
        """Run git there and return what it says.

        Raises:
            subprocess.CalledProcessError: It failed.
        """
        done = self.run("git", *arguments)
        done.check_returncode()
        return done.stdout

    def commit(self, message: str) -> None:
        """Make it a repository where it is none, and commit all that is in it."""
        self.git("init", "--quiet")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)


@cache
def files() -> tuple[Path, ...]:
    """Return the repository's files from its root: tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout
    paths = (Path(name) for name in sorted(set(listed.split("\0")) - {""}))
    return tuple(path for path in paths if (ROOT / path).is_file())


def path() -> str:
    """Return the `PATH` of commands in a copy: the inherited one, with the checkout's uv."""
    return f"{os.environ['PATH']}{os.pathsep}{_OWN_UV}"


def copy(target: Path) -> Checkout:
    """Copy the repository's files and uv's lock into a directory.

    Raises:
        FileNotFoundError: There is no lock; whatever has made `.venv` has written one.
    """
    for path in (*files(), Path(UV_LOCK)):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target / path)
    return Checkout(target)
