"""What the CIS Docker Benchmark 1.6 asks of images and containers, as far as files can show it.

Each test names its recommendations. What only a running container shows is in `tests/e2e`.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.checkout import ROOT, files

DOCKERFILES = [ROOT / path for path in files() if path.name == "Dockerfile"]
FILES = {
    str(path): yaml.load((ROOT / path).read_text(), yaml.CSafeLoader)
    for path in files()
    if path.match("docker-compose*.yml")
}
MAIN = FILES["docker-compose.yml"]
SERVICES: dict[str, dict[str, Any]] = MAIN["services"]
WRITE_OUTSIDE_OF_VOLUMES = {"kafka", "schema-registry"}
END_BY_THEMSELVES = {"topics": "on-failure:3", "tools": "no"}
OF_THE_HOST = {
    *("privileged", "cap_add", "devices", "network_mode", "pid", "uts", "userns_mode"),
    *("cgroup", "cgroup_parent"),
}
VERSIONED = re.compile(
    r"\$\{IMAGE_PREFIX:-\}speech-\w+:\$\{VERSION:-[^}]+\}|[a-z/-]+:v?\d+\.\d+\.\d+"
)
SECRET = re.compile(r"(password|secret|token|api_?key)s?(_file)?$", re.IGNORECASE)

every_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
every_service = pytest.mark.parametrize("name", SERVICES)


@every_dockerfile
def test_an_image_is_built_of_what_is_known(path: Path):
    """4.1 to 4.3, 4.7, 4.9, 4.10: user 1000, an official base by its version, nothing fetched."""
    text = path.read_text()
    bases = set(re.findall(r"^FROM (\S+:\S+)", text, re.MULTILINE))
    assert bases
    assert bases <= {"python:3.13-slim", "caddy:2.11"}
    assert set(re.findall(r"^USER (.+)$", text, re.MULTILINE)) == {"1000:1000"}
    assert re.findall(r"^ADD\b|\b(?:apt|apt-get|apk)\b", text, re.MULTILINE) == []
    given = re.findall(r"^(?:ARG|ENV) (\w+)", text, re.MULTILINE)
    assert [name for name in given if SECRET.search(name)] == []


def test_only_verified_packages_are_installed():
    """4.11: each `pip` that installs takes a lock with hashes, or only what was built here."""
    text = (ROOT / "services" / "Dockerfile").read_text().replace("\\\n", " ")
    commands = re.split(r"^RUN |&&", text, flags=re.MULTILINE)
    installing = [each for each in commands if re.search(r"pip\b.* install", each)]
    assert [bool(re.search("--require-hashes|--no-index", each)) for each in installing] == [
        *[True] * 3
    ]


@every_service
def test_a_service_is_confined(name: str):
    """4.6, 5.4, 5.11, 5.12, 5.15, 5.19, 5.22, 5.25 to 5.29: rights, resources, health, logs."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] == service["memswap_limit"]
    assert 0 < service["cpus"] <= 2
    assert 0 < service["pids_limit"] <= 512
    assert service["ulimits"]["core"] == 0  # it would hold what people said
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["restart"] == END_BY_THEMSELVES.get(name, "unless-stopped")
    assert ("test" in service.get("healthcheck", {})) == (name not in END_BY_THEMSELVES)
    assert VERSIONED.fullmatch(service["image"])
    assert service["networks"]


@every_service
def test_what_is_written_is_in_memory_and_small(name: str):
    """5.13: the root is read-only, and what is not can hold no program. Two are exceptions."""
    service = SERVICES[name]
    assert service.get("read_only", False) == (name not in WRITE_OUTSIDE_OF_VOLUMES)
    for mount in service.get("tmpfs", []):
        options = set(mount.partition(":")[2].split(","))
        assert {"size=1m", "size=4k"} & options
        assert "ro" in options or {"noexec", "nosuid", "nodev"} <= options


@pytest.mark.parametrize("file", FILES)
def test_nothing_of_the_host_is_shared(file: str):
    """5.5 to 5.10, 5.14, 5.16 to 5.21, 5.31, 5.32: no namespace, device, socket; loopback alone.

    The edge is for others: it has the one port that is open to them, and reads its keys.
    """
    for name, service in FILES[file]["services"].items():
        assert OF_THE_HOST & service.keys() == set()
        assert service.get("ipc", "none") == "none"
        open_to_all = [p for p in service.get("ports", []) if not p.startswith("127.0.0.1:")]
        assert bool(open_to_all) == (name == "edge")
        mounts = [each.split(":")[-3:] for each in service.get("volumes", [])]
        of_the_host = [each for each in mounts if re.match(r"[./$}\-]", each[0])]
        assert [each for each in of_the_host if each[-1] != "ro" or each[0][0] == "/"] == []


def test_inner_networks_reach_nothing_outside():
    """5.30: every service names its networks; the edge alone is on one that is not internal."""
    inner = {name for name, each in MAIN["networks"].items() if (each or {}).get("internal")}
    assert inner == {"pipeline", "ingress"}
    outside = {name for name, each in SERVICES.items() if set(each["networks"]) - inner}
    assert outside == {"edge"}
    assert SERVICES["edge"]["profiles"] == ["edge"]
    assert {name for name, each in SERVICES.items() if "ports" in each} == {"edge"}


@pytest.mark.parametrize("file", FILES)
def test_secrets_come_from_outside_alone(file: str):
    """4.10: no file holds one; each is what the operator's environment says."""
    services = FILES[file]["services"].values()
    given = [pair for each in services for pair in each.get("environment", {}).items()]
    secrets = [str(value) for key, value in given if SECRET.search(key)]
    assert [value for value in secrets if not re.fullmatch(r"\$\{\w+(:-)?\}", value)] == []
