"""`scripts/sbom`: a CycloneDX document for each image of ours that names all that it holds."""

import json
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.checkout import ROOT, Checkout
from support.compose import Project

LOCKS = {
    "speech-gateway": "services/gateway/requirements.lock",
    "speech-asr": "services/asr/requirements.lock",
    "speech-tools": "tools/requirements.lock",
    "speech-edge": None,
}
IN_IMAGES = {"python_version": "3.13", "python_full_version": "3.13.0"}


def pinned(lock: str) -> set[tuple[str, str]]:
    """Return what an image installs of a lock: names and versions."""
    pins = re.findall(r"^(\w.*==.*?) \\$", (ROOT / lock).read_text(), re.MULTILINE)
    wanted = [each for pin in pins if is_for_images(each := Requirement(pin))]
    return {(canonicalize_name(each.name), str(each.specifier)[2:]) for each in wanted}


def is_for_images(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(IN_IMAGES)


def test_each_document_names_what_the_image_installs_and_what_its_base_brings(
    docker_client, tmp_path
):
    """Every pin of its lock, our own packages, and the packages of the system below."""
    assert Project(docker_client).compose("--profile", "*", "build").returncode == 0
    done = Checkout(ROOT).run("scripts/sbom", str(tmp_path), timeout=300)
    written = sorted(f"{tmp_path}/{name}.cdx.json: written" for name in LOCKS)
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, written), done.stderr
    for name, lock in LOCKS.items():
        found = packages(tmp_path / f"{name}.cdx.json")
        assert len([each for each in found if each[0] in {"deb", "apk"}]) > 10
        of_python = {each[1:] for each in found if each[0] == "pypi"}
        if lock is not None:
            assert pinned(lock) - of_python == set()
            assert {"speech-lib", name} <= {what for what, _ in of_python}


def packages(document: Path) -> set[tuple[str, str, str]]:
    """Return what a document names: kind, name and version."""
    named = (each.get("purl", "") for each in json.loads(document.read_text())["components"])
    found = (re.match(r"pkg:(\w+)/(?:.*/)?(.+?)@([^?]*)", purl) for purl in named)
    return {(each[1], canonicalize_name(each[2]), each[3]) for each in found if each}


@pytest.mark.parametrize("wrong", [["--help-me"], ["a", "b"]])
def test_what_it_does_not_know_is_refused(wrong):
    """One line and exit code 2, before anything is made."""
    done = Checkout(ROOT).run("scripts/sbom", *wrong)
    assert (done.returncode, done.stderr) == (2, "usage: scripts/sbom [DIRECTORY]\n")
