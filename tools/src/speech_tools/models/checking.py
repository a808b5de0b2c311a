"""Compare what is on the disk with the manifest."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from speech_tools.models.manifest import Model, ModelFile


def faults(model: Model, directory: Path) -> Iterator[str]:
    """Yield what is wrong with a model's directory, file by file; nothing if all is well."""
    if not directory.is_dir():
        yield "is not there"
        return
    for file in model.files:
        if fault := _fault(file, directory / file.name):
            yield f"{file.name} {fault}"


def sha256(path: Path) -> str:
    """Return the hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fault(file: ModelFile, path: Path) -> str | None:
    if not path.is_file():
        return "is missing"
    if (size := path.stat().st_size) != file.size:
        return f"has {size} bytes, expected {file.size}"
    if sha256(path) != file.sha256:
        return "has other bytes than the manifest's SHA-256 says"
    return None
