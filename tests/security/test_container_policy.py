"""What the CIS Docker Benchmark 1.6 asks of images and containers, as far as files can show it.

Each test names its recommendations. What only a running container shows is in `tests/e2e`.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAIN = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OVERRIDE = yaml.safe_load((ROOT / "docker-compose.override.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = MAIN["services"]
WITH_PYTHON = [ROOT / each / "Dockerfile" for each in ("services/gateway", "services/asr", "tools")]
DOCKERFILES = [*WITH_PYTHON, ROOT / "services/gateway/edge/Dockerfile"]
LIMITS = {  # memory, processors, processes
    "kafka": ("1g", 2.0, 512),
    "schema-registry": ("768m", 1.0, 512),
    "topics": ("256m", 1.0, 64),
    "gateway-service": ("256m", 1.0, 64),
    "asr-service": ("1g", 2.0, 128),
    "tools": ("512m", 1.0, 64),
    "edge": ("512m", 1.0, 64),
    "prometheus": ("256m", 0.5, 64),
}
WRITE_OUTSIDE_OF_VOLUMES = {"kafka", "schema-registry"}
END_BY_THEMSELVES = {"topics": "on-failure:3", "tools": "no"}
OF_THE_HOST = {
    *("privileged", "cap_add", "devices", "network_mode", "pid", "uts", "userns_mode"),
    *("cgroup", "cgroup_parent"),
}
SECRET = re.compile(r"(password|secret|token|api_?key)s?(_file)?$", re.IGNORECASE)

every_dockerfile = pytest.mark.parametrize(
    "path", DOCKERFILES, ids=lambda path: str(path.parent.relative_to(ROOT))
)


def of_each(key: str) -> dict[str, Any]:
    """Return what every service of the main file has under a key."""
    return {name: each.get(key) for name, each in SERVICES.items()}


def everywhere(value: object) -> dict[str, Any]:
    """Return the same for every service."""
    return {name: value for name in SERVICES}  # noqa: C420 - it may be a list


def limits(column: int) -> dict[str, Any]:
    """Return a column of the limits."""
    return {name: each[column] for name, each in LIMITS.items()}


@every_dockerfile
def test_4_1_a_user_for_the_container_has_been_created(path):
    """4.1: the image runs as user 1000, also where nobody says so."""
    last_stage = path.read_text().rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.+)$", last_stage, re.MULTILINE) == ["1000:1000"]


@every_dockerfile
def test_4_2_images_are_built_from_official_ones_and_fetch_nothing_else(path):
    """4.2, 4.3, 4.7, 4.9: a base with its version, no package manager of the system, no ADD."""
    text = path.read_text()
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {"python:3.13-slim", "caddy:2.11"}
    assert re.findall(r"^ADD\b|\b(?:apt|apt-get|apk)\b", text, re.MULTILINE) == []


def test_4_6_what_stays_is_asked_for_its_health():
    """4.6, 5.27: all but what ends by itself, which compose waits for."""
    checks = of_each("healthcheck")
    assert {name for name, each in checks.items() if "test" in each} == {
        *SERVICES.keys() - END_BY_THEMSELVES.keys()
    }


@pytest.mark.parametrize("path", WITH_PYTHON, ids=lambda path: path.parent.name)
def test_4_11_only_verified_packages_are_installed(path):
    """4.11: each `pip` that installs takes a lock with hashes, or only what was built here."""
    commands = re.split(r"^RUN |&&", path.read_text().replace("\\\n", " "), flags=re.MULTILINE)
    installing = [each for each in commands if re.search(r"pip\b.* install", each)]
    assert [bool(re.search("--require-hashes|--no-index", each)) for each in installing] == [
        *[True] * 3
    ]


def test_5_4_linux_capabilities_are_restricted():
    """5.4, 5.22, 5.26: none are left, none can be gained, and Docker's seccomp profile is on."""
    assert of_each("cap_drop") == everywhere(["ALL"])
    assert of_each("security_opt") == everywhere(["no-new-privileges:true"])


def test_5_5_nothing_of_the_host_is_shared():
    """5.5, 5.10, 5.16, 5.17, 5.18, 5.21, 5.25, 5.31: neither namespaces nor devices nor rights."""
    shared = {name: OF_THE_HOST & each.keys() for name, each in SERVICES.items()}
    assert shared == everywhere(set())
    assert set(of_each("ipc").values()) <= {"none", None}


def test_5_6_only_known_places_are_mounted():
    """5.6, 5.20, 5.32: the data's volumes, rules, and files that the operator names, read-only."""
    assert {name: each for name, each in of_each("volumes").items() if each} == {
        "kafka": ["kafka-data:/var/lib/kafka/data"],
        "edge": [
            "${EDGE_API_KEY_FILE:-/dev/null}:/run/edge/api-key:ro",
            "${EDGE_TLS_CERT_FILE:-/dev/null}:/run/edge/tls.crt:ro",
            "${EDGE_TLS_KEY_FILE:-/dev/null}:/run/edge/tls.key:ro",
        ],
        "prometheus": ["./deploy/observability:/etc/prometheus:ro", "prometheus-data:/prometheus"],
    }


def test_5_9_only_needed_ports_are_open():
    """5.7, 5.8, 5.9: alone, the main file publishes the edge's one port, with its profile."""
    opened = {name: each["ports"] for name, each in SERVICES.items() if "ports" in each}
    assert opened == {"edge": ["${EDGE_ADDRESS:-0.0.0.0}:${EDGE_PORT:-8443}:8443"]}
    assert SERVICES["edge"]["profiles"] == ["edge"]


def test_5_11_memory_is_limited():
    """5.11: of every container, without swap on top."""
    assert of_each("mem_limit") == of_each("memswap_limit") == limits(0)


def test_5_12_processor_time_is_limited():
    """5.12: of every container."""
    assert of_each("cpus") == limits(1)


def test_5_13_the_root_filesystem_is_read_only():
    """5.13: what can be written is in memory, small, and not executable. Two are exceptions."""
    read_only = {name for name, each in of_each("read_only").items() if each}
    assert read_only == SERVICES.keys() - WRITE_OUTSIDE_OF_VOLUMES
    for name in read_only:
        options = [set(mount.partition(":")[2].split(",")) for mount in SERVICES[name]["tmpfs"]]
        assert options
        assert all({"size=1m", "size=4k"} & each for each in options)
        assert all("ro" in each or {"noexec", "nosuid", "nodev"} <= each for each in options)


def test_5_14_what_is_for_this_machine_is_on_loopback():
    """5.14: all that the developer's file publishes."""
    published = [port for each in OVERRIDE["services"].values() for port in each.get("ports", [])]
    assert len(published) == 6
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_5_15_restarts_are_bounded_where_it_ends_by_itself():
    """5.15: what serves comes back, each time after a longer wait."""
    assert of_each("restart") == everywhere("unless-stopped") | END_BY_THEMSELVES


def test_5_19_core_dumps_are_off():
    """5.19: a core file of any of them would hold what people said, Kafka's most of all."""
    assert {name: each["core"] for name, each in of_each("ulimits").items()} == everywhere(0)


def test_5_28_images_are_named_by_their_version():
    """5.28: what runs is what was built, or pulled, under that version."""
    version = re.compile(
        r"\$\{IMAGE_PREFIX:-\}speech-\w+:\$\{VERSION:-[^}]+\}|[a-z/-]+:v?\d+\.\d+\.\d+"
    )
    assert [image for image in of_each("image").values() if not version.fullmatch(image)] == []


def test_5_29_the_number_of_processes_is_limited():
    """5.29: of every container."""
    assert of_each("pids_limit") == limits(2)


def test_5_30_inner_networks_reach_nothing_outside():
    """5.30: every service names its networks; the edge alone is on one that is not internal."""
    inner = {name for name, each in MAIN["networks"].items() if (each or {}).get("internal")}
    assert inner == {"pipeline", "ingress"}
    networks = of_each("networks")
    assert all(networks.values())
    assert {name for name, each in networks.items() if set(each) - inner} == {"edge"}


def test_what_collects_garbage_knows_its_limit():
    """Programs in Go would rather fill the container than collect: they are told most of it."""
    told = {name: each.get("environment", {}).get("GOMEMLIMIT") for name, each in SERVICES.items()}
    assert {name: each for name, each in told.items() if each} == {
        "edge": "400MiB",
        "prometheus": "200MiB",
    }


def test_logs_are_bounded():
    """A log that is written by clients' doings cannot fill the disk."""
    options = {name: each["options"] for name, each in of_each("logging").items()}
    assert options == everywhere({"max-size": "10m", "max-file": "3"}) | {
        "gateway-service": {"max-size": "10m", "max-file": "10"}
    }


def test_prometheus_keeps_a_bounded_past_and_takes_no_orders():
    """Neither time nor size can fill the disk; nothing lets who reaches it change anything."""
    command = SERVICES["prometheus"]["command"]
    assert "--storage.tsdb.retention.time=7d" in command
    assert "--storage.tsdb.retention.size=512MB" in command
    assert [each for each in command if "enable" in each] == []


def test_4_10_secrets_come_from_outside_alone():
    """4.10: no image and no file holds one; each is what the operator's environment says."""
    built = [
        re.findall(r"^(?:ARG|ENV) (.+)$", path.read_text(), re.MULTILINE) for path in DOCKERFILES
    ]
    assert [
        name for names in built for name in names if SECRET.search(name.partition("=")[0])
    ] == []
    given = [each.get("environment", {}).items() for each in SERVICES.values()]
    secrets = {key: value for pairs in given for key, value in pairs if SECRET.search(key)}
    assert secrets == {key: f"${{{key}:-}}" for key in secrets}
