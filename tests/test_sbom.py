"""`scripts/sbom`: a CycloneDX document for each service that names all of its image's lock."""

import json
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from pipeline_tools.sbom import portable

ROOT = Path(__file__).parent.parent
RUN_SECONDS = 110
PINNED = re.compile(r"^([a-z0-9-]+)==([^\s;]+)", re.MULTILINE)
MEMBERS = {"speech-gateway": {"speech-lib"}, "speech-asr": {"speech-lib"}}


def test_a_file_keeps_its_name_and_hash_and_loses_its_address():
    """What a machine's index is called is nobody's business; members get their version."""
    digest = [{"alg": "SHA-256", "content": "0" * 64}]
    found = {"type": "distribution", "url": "https://host.example/a/b/x-1.tar.gz", "hashes": digest}
    document = {
        "bomFormat": "CycloneDX",
        "metadata": {
            "component": {
                "type": "library",
                "name": "speech-gateway",
                "properties": [{"name": "uv:package:is_project_root", "value": "true"}],
            }
        },
        "components": [
            {"type": "library", "name": "x", "version": "1", "externalReferences": [found]},
            {"type": "library", "name": "speech-lib"},
        ],
    }
    assert portable(document) == {
        "bomFormat": "CycloneDX",
        "metadata": {
            "component": {
                "type": "application",
                "name": "speech-gateway",
                "version": version("speech-gateway"),
            }
        },
        "components": [
            {
                "type": "library",
                "name": "x",
                "version": "1",
                "externalReferences": [found | {"url": "x-1.tar.gz"}],
            },
            {"type": "library", "name": "speech-lib", "version": version("speech-lib")},
        ],
    }


def test_a_component_of_unknown_version_is_refused():
    """Such a document would name something that nobody can look up."""
    nobody = {"type": "library", "name": "no-such-package"}
    with pytest.raises(SystemExit, match=r"^sbom: no-such-package: no version, and"):
        portable({"metadata": {"component": nobody}, "components": []})


def test_what_it_does_not_know_is_refused():
    """An option that is none gets one line and exit code 2, before anything is made."""
    done = sbom(ROOT, "--help-me")
    assert (done.returncode, done.stderr) == (2, "usage: scripts/sbom [DIRECTORY]\n")


def sbom(checkout: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the script of a checkout."""
    return subprocess.run(  # noqa: S603 - our own script
        [str(checkout / "scripts" / "sbom"), *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=checkout,
        timeout=RUN_SECONDS,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of all that the script reads, so that no `.venv` that is in use is touched."""
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("speech-lib", "services", "scripts"):
        ignored = shutil.ignore_patterns("tests", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    return tmp_path


@pytest.mark.pipeline
@pytest.mark.timeout(2 * RUN_SECONDS)
@pytest.mark.skipif(not (ROOT / "uv.lock").exists(), reason="no uv.lock: `uv sync` makes it")
def test_each_document_names_what_the_lock_pins(checkout: Path):
    """Name, version and hashes of everything in a service's lock, and no address."""
    done = sbom(checkout, "lists")
    paths = {name: checkout / "lists" / f"{name}.cdx.json" for name in MEMBERS}
    assert (done.returncode, done.stdout) == (
        0,
        "".join(f"{path}: written\n" for path in paths.values()),
    )
    for name, path in paths.items():
        document = json.loads(path.read_text())
        assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
        root = document["metadata"]["component"]
        assert (root["type"], root["name"], root["version"]) == (
            *("application", name),
            version(name),
        )
        lock = (ROOT / "services" / name.removeprefix("speech-") / "requirements.lock").read_text()
        components = {each["name"]: each for each in document["components"]}
        members = {member: version(member) for member in MEMBERS[name]}
        assert {each: found["version"] for each, found in components.items()} == (
            dict(PINNED.findall(lock)) | members
        )
        hashes = re.findall(r'"content": "([0-9a-f]{64})"', path.read_text())
        assert set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock)) == set(hashes)
        assert re.findall(r"\w+://[^\"]*", path.read_text()) == []
