"""The repository's own files, and copies of them; for tests of scripts and documents.

A copy is a checkout of its own: scripts make a `.venv` in it, and change its files, without
touching the one that is in use.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
_MAKING = "making .venv (the first time this downloads the dependencies)\n"
_OWN_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
"""Set where a hook of git runs us: in a copy they would name the wrong repository."""


@dataclass(frozen=True)
class Checkout:
    """A copy of the repository's files, tracked or about to be."""

    root: Path

    def run(
        self, *command: str, timeout: float = RUN_SECONDS
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, there; a path is looked up from the copy's root."""
        program = self.root / command[0]
        inherited = {k: v for k, v in os.environ.items() if k not in _OWN_REPOSITORY}
        return subprocess.run(  # noqa: S603 - commands of our own tests
            [str(program) if program.is_file() else command[0], *command[1:]],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.root,
            env=inherited | _GIT_ENVIRONMENT,
            timeout=timeout,
        )

    def script(self, *command: str) -> tuple[int, str, str]:
        """Run a script of ours; return its exit code, its output, and what it complains of.

        That the copy's `.venv` is being made is left out: it is said once, by whatever comes first.
        """
        done = self.run(*command)
        return done.returncode, done.stdout, done.stderr.replace(_MAKING, "")

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


def copy(target: Path) -> Checkout:
    """Copy the repository's files and uv's lock into a directory.

    Raises:
        FileNotFoundError: There is no lock; whatever has made `.venv` has written one.
    """
    for path in (*files(), Path(UV_LOCK)):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target / path)
    return Checkout(target)
