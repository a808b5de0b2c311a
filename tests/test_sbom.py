"""`scripts/sbom`: a CycloneDX document for each service that names all of its image's lock."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from sbom import portable
from support import checkout
from support.checkout import ROOT, RUN_SECONDS, Checkout

PINNED = re.compile(r"^([a-z0-9-]+)==([^\s;]+)", re.MULTILINE)
MEMBERS = {"speech-gateway": {"speech-lib"}, "speech-asr": {"speech-lib"}}


def test_a_file_keeps_its_name_and_hash_and_loses_its_address():
    """What a machine's index is called is nobody's business; members get their version.

    A file that the lock does not permit is left out: nobody can have installed it.
    """
    digest = [{"alg": "SHA-256", "content": "0" * 64}]
    found = {"type": "distribution", "url": "https://host.example/a/b/x-1.tar.gz", "hashes": digest}
    other = found | {"hashes": [{"alg": "SHA-256", "content": "1" * 64}]}
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
            {"type": "library", "name": "x", "version": "1", "externalReferences": [found, other]},
            {"type": "library", "name": "speech-lib"},
        ],
    }
    assert portable(document, frozenset({"0" * 64})) == {
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
        portable({"metadata": {"component": nobody}, "components": []}, frozenset())


def test_what_it_does_not_know_is_refused():
    """An option that is none gets one line and exit code 2, before anything is made."""
    done = Checkout(ROOT).run("scripts/sbom", "--help-me")
    assert (done.returncode, done.stderr) == (2, "usage: scripts/sbom [DIRECTORY]\n")


@pytest.mark.pipeline
@pytest.mark.timeout(2 * RUN_SECONDS)
def test_each_document_names_what_the_lock_pins(tmp_path: Path):
    """Name, version and hashes of everything in a service's lock, and no address."""
    copy = checkout.copy(tmp_path)
    done = copy.run("scripts/sbom", "lists")
    paths = {name: copy.root / "lists" / f"{name}.cdx.json" for name in MEMBERS}
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
