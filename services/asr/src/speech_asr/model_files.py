"""Find a model's directory, and refuse one that is not what it should be.

`pool` calls `find` once, before it starts the workers, whose engines call `one_of`. Never tells a
path: where a model is may be a secret put into the wrong variable.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from speech_asr.errors import EngineUnavailable

SUMS = "SHA256SUMS"
"""The hashes of a directory's files, as `speech models fetch` and `sha256sum` write them."""


def find(model: str, folders: Sequence[str]) -> Path:
    """Return the directory of a model: its path, or the first folder's that holds its name.

    Raises:
        EngineUnavailable: There is none, or a file in it is not what its SHA256SUMS says.
    """
    directory = _directory(model, folders)
    for name, digest in _sums(directory):
        if not _fits(directory / name, digest):
            raise EngineUnavailable(
                f"ASR_MODEL: {name} of the model is not what its {SUMS} says: fetch it again"
            )
    return directory


def one_of(directory: Path, patterns: Sequence[str], what: str) -> Path:
    """Return the first file, by name, that fits the first pattern which any file fits.

    Raises:
        EngineUnavailable: None fits; the line says that `what` is expected.
    """
    for pattern in patterns:
        if found := sorted(each for each in directory.glob(pattern) if each.is_file()):
            return found[0]
    raise EngineUnavailable(f"ASR_MODEL: expected {what}; the model has no {patterns[-1]}")


def _directory(model: str, folders: Sequence[str]) -> Path:
    places = [Path(model)] if os.sep in model else [Path(folder, model) for folder in folders]
    for place in places:
        if place.is_dir():
            return place
    raise EngineUnavailable(
        "ASR_MODEL: expected a directory, or the name of a model in ASR_MODELS_DIR;"
        " `speech models fetch` gets one"
    )


def _sums(directory: Path) -> Iterator[tuple[str, str]]:
    """Yield each file's name and hash; nothing where there is no list of them."""
    try:
        lines = (directory / SUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        raise EngineUnavailable(f"ASR_MODEL: the model's {SUMS} cannot be read") from None
    for line in lines:
        digest, _, name = line.partition(" ")
        yield name.lstrip(" *"), digest


def _fits(file: Path, digest: str) -> bool:
    try:
        with file.open("rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest() == digest
    except OSError:
        return False
