"""What a model is made of: the manifest, read and checked.

Pure but for reading the package's own file.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
LICENCE = "LICENSE"
"""The name of the licence text in a model's directory."""
SUMS = "SHA256SUMS"
"""The list of the files' hashes in a model's directory, as `sha256sum -c` reads it."""


class ModelError(Exception):
    """A model cannot be had, or is not what it should be; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Package:
    """A file of a package index that holds weights.

    Attributes:
        name: Its project.
        version: Its version.
        size: Its bytes.
        sha256: The hash of the file, in hexadecimal.
        platform: The platform tag of the file, where it has one.
    """

    name: str
    version: str
    size: int
    sha256: str
    platform: str | None = None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file in a model's directory.

    Attributes:
        name: Its name.
        size: Its bytes.
        sha256: Its hash, in hexadecimal.
        parts: The package and the member of each part, in order.
        made_by: How the parts are translated; as they are where it is empty.
    """

    name: str
    size: int
    sha256: str
    parts: tuple[tuple[str, str], ...]
    made_by: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the manifest.

    Attributes:
        name: What users call it, and its directory.
        engine: What `ASR_ENGINE` must be.
        family: What `ASR_MODEL_FAMILY` must be; empty where the engine has none.
        languages: Which it knows.
        licence: Of the weights.
        licence_text: All of it.
        source: Whose weights they are.
        packages: Where they are.
        files: What is in its directory.
    """

    name: str
    engine: str
    family: str
    languages: str
    licence: str
    licence_text: str
    source: str
    packages: tuple[Package, ...]
    files: tuple[ModelFile, ...]

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(each.size for each in self.files)

    @property
    def download_size(self) -> int:
        """The bytes of its packages."""
        return sum(each.size for each in self.packages)

    def sums(self) -> str:
        """Return the list of its files' hashes."""
        return "".join(f"{each.sha256}  {each.name}\n" for each in self.files)


def models() -> Mapping[str, Model]:
    """Return every model by its name, in the order of the manifest."""
    table = tomllib.loads((_HERE / "manifest.toml").read_text(encoding="utf-8"))
    return {name: _model(name, **entry) for name, entry in table.items()}


def model(name: str) -> Model:
    """Return one model.

    Raises:
        ModelError: The manifest has none of this name.
    """
    known = models()
    if name not in known:
        raise ModelError(f"{name}: no such model, expected one of {', '.join(known)}")
    return known[name]


def _model(
    name: str, *, licence_file: str, packages: list[Any], files: list[Any], **told: str
) -> Model:
    return Model(
        name=name,
        family=told.pop("family", ""),
        licence_text=(_HERE / "licences" / licence_file).read_text(encoding="utf-8"),
        packages=tuple(Package(size=each.pop("bytes"), **each) for each in packages),
        files=tuple(_file(**each) for each in files),
        **told,
    )


def _file(*, bytes: int, parts: list[str], **told: str) -> ModelFile:  # noqa: A002 - the manifest's word
    members = tuple((package, member) for package, _, member in (p.partition(":") for p in parts))
    return ModelFile(size=bytes, parts=members, **told)
