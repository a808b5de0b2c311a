"""Pin what the workspace installs, and write the locks of what images install; for scripts/lock.

The pins stand in the root's pyproject.toml as constraints, because `uv sync` and `uv run` obey them
there without the lock that names the machine's package index. uv resolves in a copy of the
workspace, from the pins as they are, and keeps each that still fits.
Only the standard library is used: this runs before there is an environment.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MANIFEST = "pyproject.toml"
CONSTRAINTS = "constraint-dependencies"
BUILD_CONSTRAINTS = "build-constraint-dependencies"
SHOWN_NAMES = 5

_SERVICE = ("--no-dev", "--package")
_IMAGE_EXTRAS = ("--extra", "sherpa")  # the engines that the recogniser's image holds
LOCKS: dict[str, tuple[str, ...]] = {
    "services/gateway/requirements.lock": (*_SERVICE, "speech-gateway"),
    "services/gateway/requirements-otlp.lock": (*_SERVICE, "speech-gateway", "--extra", "otlp"),
    "services/asr/requirements.lock": (*_SERVICE, "speech-asr", *_IMAGE_EXTRAS),
    "services/asr/requirements-otlp.lock": (
        *(*_SERVICE, "speech-asr", *_IMAGE_EXTRAS),
        *("--extra", "otlp"),
    ),
    "services/build-requirements.lock": ("--only-group", "build"),
    "tools/requirements.lock": (*_SERVICE, "speech-tools"),
}
"""Each lock, and what `uv export` takes for it."""

_EVERYTHING = ("--all-packages", "--all-groups", "--all-extras")
_PINS_ONLY = ("--no-hashes", "--no-annotate")
_PINNED = re.compile(r"^(\w.*) \\\n((?:    --hash=.*\n)+)", re.MULTILINE)
_UNTOUCHED = shutil.ignore_patterns("tests", "__pycache__", "*.lock", ".*")


class LockError(Exception):
    """Nothing can be resolved; the text is what uv said."""


@dataclass(frozen=True)
class Workspace:
    """A copy of what uv reads of the workspace.

    Attributes:
        root: Where it is.
        uv: The program.
        manifest: The root's pyproject.toml, as it is in the checkout.
    """

    root: Path
    uv: str
    manifest: str

    def resolve(self, *, upgrade: bool) -> None:
        """Lock the copy: with the newest versions, or from the pins, of which it keeps what fits.

        Raises:
            LockError: There is no solution, or no index; or the members support other Pythons.
        """
        file = self.root / MANIFEST
        if not upgrade:
            # uv prefers what its lock holds, so the pins alone are locked first.
            file.write_text(_nothing_but_pins(self.manifest, self._python_range()))
            self._uv("lock")
        file.write_text(with_list(with_list(self.manifest, CONSTRAINTS, ()), BUILD_CONSTRAINTS, ()))
        self._uv("lock")

    def pinned(self) -> str:
        """Return the root's pyproject.toml with the versions that were resolved."""
        everything = self._export(*_EVERYTHING, *_PINS_ONLY)
        build = self._export("--only-group", "build", *_PINS_ONLY)
        text = with_list(self.manifest, CONSTRAINTS, everything.splitlines())
        return with_list(text, BUILD_CONSTRAINTS, build.splitlines())

    def lock(self, name: str) -> str:
        """Return a lock's text. No addresses are in it: they are the machine's.

        Raises:
            LockError: The index has no hash of something, so no image could install it.
        """
        text = self._export(*LOCKS[name])
        named = {line.removesuffix(" \\") for line in text.splitlines() if line[:1].isalnum()}
        if bare := named - requirements(text).keys():
            raise LockError(f"{name}: the index has no hash of {_listed(bare)}")
        return text

    def _export(self, *options: str) -> str:
        return self._uv("export", "--frozen", "--no-header", "--no-emit-workspace", *options)

    def _uv(self, *command: str) -> str:
        done = subprocess.run(  # noqa: S603 - uv, as scripts/lock has found it
            [self.uv, *command, "--quiet", "--python", sys.executable],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.root,
        )
        if done.returncode:
            raise LockError(done.stderr.strip())
        return done.stdout

    def _python_range(self) -> str:
        members = [tomllib.loads(each.read_text()) for each in self.root.glob(f"*/**/{MANIFEST}")]
        ranges: set[str] = {member["project"]["requires-python"] for member in members}
        if len(ranges) != 1:
            raise LockError(f"members differ in requires-python: {', '.join(sorted(ranges))}")
        return ranges.pop()


def copied(root: Path, target: Path, uv: str) -> Workspace:
    """Copy what uv reads of a workspace: manifests, and sources that hold the versions."""
    manifest = (root / MANIFEST).read_text(encoding="utf-8")
    for pattern in tomllib.loads(manifest)["tool"]["uv"]["workspace"]["members"]:
        for member in (each.parent for each in root.glob(f"{pattern}/{MANIFEST}")):
            shutil.copytree(member, target / member.relative_to(root), ignore=_UNTOUCHED)
    return Workspace(target, uv, manifest)


def with_list(manifest: str, key: str, items: Iterable[str]) -> str:
    """Return a pyproject.toml in which a list of strings, one a line, has these items."""
    text = "".join(f'  "{item}",\n' for item in items)
    changed, count = re.subn(
        rf"^{key} = \[\n(?:  .*\n)*\]$", f"{key} = [\n{text}]", manifest, flags=re.MULTILINE
    )
    if count != 1:
        raise LockError(f"{MANIFEST}: expected one list {key} = […], an item a line")
    return changed


def requirements(lock: str) -> dict[str, str]:
    """Return what a lock pins, each with its marker, to the lines of its hashes."""
    return dict(_PINNED.findall(lock))


def with_known_hashes(new: str, old: str) -> str:
    """Return the new lock; what was pinned before keeps the hashes that it had.

    A file that somebody adds to an old version does not become trusted by itself.
    """
    known = requirements(old)
    return _PINNED.sub(lambda pin: f"{pin[1]} \\\n{known.get(pin[1], pin[2])}", new)


def wrong(name: str, old: str, new: str) -> str | None:
    """Return what a file lacks or holds too much, in one line; nothing where it fits."""
    held, needed = _held(name, old), _held(name, new)
    parts = [
        f"{word} {_listed(names)}"
        for word, names in (("lacks", needed - held), ("holds", held - needed))
        if names
    ]
    return f"{name}: {' and '.join(parts)}; scripts/lock writes it" if parts else None


def _held(name: str, text: str) -> set[str]:
    if name != MANIFEST:
        return set(requirements(text))
    settings = tomllib.loads(text)["tool"]["uv"]
    return {*settings[CONSTRAINTS], *settings[BUILD_CONSTRAINTS]}


def _listed(names: set[str]) -> str:
    first = sorted(names)[:SHOWN_NAMES]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")


def _nothing_but_pins(manifest: str, python: str) -> str:
    """Return the pyproject.toml of a project that needs the pins and nothing else."""
    settings = tomllib.loads(manifest)["tool"]["uv"]
    needed = [*settings[CONSTRAINTS], *settings[BUILD_CONSTRAINTS]]
    overrides = json.dumps(settings.get("override-dependencies", []))
    return (  # a list of strings is written alike in JSON and TOML
        f'[project]\nname = "pins"\nversion = "0"\nrequires-python = "{python}"\n'
        f"dependencies = {json.dumps(sorted(set(needed)))}\n"
        f"[tool.uv]\noverride-dependencies = {overrides}\n"
    )


def run(root: Path, uv: str, *, check: bool, upgrade: bool) -> int:
    """Write what has changed, or only say so; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = copied(root, Path(folder), uv)
        workspace.resolve(upgrade=upgrade)
        new = {MANIFEST: workspace.pinned()} | {name: workspace.lock(name) for name in LOCKS}
    old = {name: _read(root / name) for name in new}
    if check:
        faults = [fault for name in new if (fault := wrong(name, old[name], new[name]))]
        print("".join(f"{fault}\n" for fault in faults), end="", file=sys.stderr)
        return 1 if faults else 0
    for name, text in new.items():
        kept = text if upgrade or name == MANIFEST else with_known_hashes(text, old[name])
        if kept != old[name]:
            (root / name).write_text(kept, encoding="utf-8")
            print(f"{name}: written")
    return 0


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


def main() -> int:
    """Take the options that scripts/lock has checked; return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("uv", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--upgrade", action="store_true")
    options = parser.parse_args()
    try:
        return run(ROOT, str(options.uv.absolute()), check=options.check, upgrade=options.upgrade)
    except LockError as error:
        print(f"lock: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
