"""What the CIS Docker Benchmark (1.6, sections 4 and 5) asks of images and containers.

Each test bears the number of one recommendation, and reads the compose files and the Dockerfiles.
What can only be seen from inside a running container is in `tests/e2e`. Kafka's, the registry's and
Prometheus' images are other people's: what needs an image of our own is asked of `OURS` alone.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAIN = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OVERRIDE = yaml.safe_load((ROOT / "docker-compose.override.yml").read_text())
OURS = ("topics", "gateway-service", "asr-service", "edge")
LISTENING = ("gateway-service", "asr-service", "edge", "prometheus")
OTHERS = ("kafka", "schema-registry", "prometheus")
HARDENED = (*OURS, "prometheus")
DOCKERFILES = {
    "gateway": ROOT / "services/gateway/Dockerfile",
    "asr": ROOT / "services/asr/Dockerfile",
    "edge": ROOT / "services/gateway/edge/Dockerfile",
}
SECRET = re.compile(r"(password|secret|token|api_?key)s?(_file)?$", re.IGNORECASE)
SENSITIVE = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr", "/var/run", "/run")

every_service = pytest.mark.parametrize("name", MAIN["services"])
every_service_of_ours = pytest.mark.parametrize("name", OURS)
every_hardened_service = pytest.mark.parametrize("name", HARDENED)
every_dockerfile = pytest.mark.parametrize("path", DOCKERFILES.values(), ids=DOCKERFILES)


def service(name: str) -> dict[str, Any]:
    """Return a service as the main file has it."""
    return MAIN["services"][name]


def volumes(name: str) -> Iterator[tuple[str, str, str]]:
    """Yield source, target and mode of what is mounted."""
    for volume in service(name).get("volumes", []):
        plain = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume)
        source, target, mode = (*plain.split(":"), "rw")[:3]
        yield source, target, mode


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", path.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(keyword, rest) for keyword, _, rest in (line.partition(" ") for line in lines)]


def stage(path: Path) -> list[tuple[str, str]]:
    """Return the instructions of the last stage: what the image is."""
    all_of_it = instructions(path)
    begins = max(at for at, (keyword, _) in enumerate(all_of_it) if keyword == "FROM")
    return all_of_it[begins:]


def test_the_files_are_read_as_they_are():
    """A name that changed would make the tests below pass for nothing."""
    assert set(MAIN["services"]) == {*OTHERS, *OURS}
    assert [len(instructions(path)) > 8 for path in DOCKERFILES.values()] == [True] * 3


# Section 4: images


@every_dockerfile
def test_4_1_a_user_for_the_container_has_been_created(path):
    """The image runs as user 1000, also where nobody says so."""
    assert [rest for keyword, rest in stage(path) if keyword == "USER"] == ["1000:1000"]


@every_dockerfile
def test_4_2_containers_use_only_trusted_base_images(path):
    """What an image is built from is an official one, with its version."""
    bases = {rest.partition(" AS ")[0] for keyword, rest in instructions(path) if keyword == "FROM"}
    assert bases <= {"python:3.13-slim", "caddy:2"}
    assert len(bases) == 1


@every_dockerfile
def test_4_3_unnecessary_packages_are_not_installed(path):
    """No package manager of the system runs, and no compiler comes with the image."""
    assert [
        rest for _, rest in instructions(path) if re.search(r"\b(apt|apt-get|apk)\b", rest)
    ] == []


@every_hardened_service
def test_4_6_there_is_a_health_check(name):
    """All that listen have one; the one-shot ends, which compose waits for."""
    check = service(name)["healthcheck"]
    assert ("test" in check) == (name in LISTENING)
    assert check.get("disable", False) == (name not in LISTENING)


@every_dockerfile
def test_4_7_update_instructions_are_not_alone(path):
    """No layer is a package list that grows old in a cache."""
    assert [rest for _, rest in instructions(path) if re.search(r"\bupdate\b", rest)] == []


@every_dockerfile
def test_4_9_copy_is_used_instead_of_add(path):
    """Nothing is fetched or unpacked in passing."""
    assert "ADD" not in {keyword for keyword, _ in instructions(path)}


@every_dockerfile
def test_4_10_secrets_are_not_stored_in_dockerfiles(path):
    """No variable or argument of a build bears a secret's name."""
    named = [rest for keyword, rest in instructions(path) if keyword in {"ENV", "ARG"}]
    names = [part.partition("=")[0] for rest in named for part in shlex.split(rest)]
    assert names
    assert [name for name in names if SECRET.search(name)] == []


@pytest.mark.parametrize("name", ["gateway", "asr"])
def test_4_11_only_verified_packages_are_installed(name):
    """Each `pip` that installs takes a lock with hashes, or nothing but what was built here."""
    runs = [rest for keyword, rest in instructions(DOCKERFILES[name]) if keyword == "RUN"]
    commands = [
        part for rest in runs for part in rest.split("&&") if re.search(r"pip.*install", part)
    ]
    assert len(commands) == 3
    assert [each for each in commands if not re.search("--require-hashes|--no-index", each)] == []


# Section 5: containers


@every_service
def test_5_4_linux_capabilities_are_restricted(name):
    """All are dropped, none is added."""
    assert service(name)["cap_drop"] == ["ALL"]
    assert "cap_add" not in service(name)


@every_service
def test_5_5_no_container_is_privileged(name):
    """Not one."""
    assert "privileged" not in service(name)


@every_service
def test_5_6_sensitive_host_directories_are_not_mounted(name):
    """What is mounted is a named volume, a file that the operator names, or Prometheus' rules."""
    sources = [source for source, _, _ in volumes(name)]
    assert [source for source in sources if source.rstrip("/") in SENSITIVE] == []
    allowed = {"prometheus": {"./deploy/observability"}}.get(name, {"/dev/null"})
    assert {source for source in sources if source.startswith((".", "/"))} <= allowed


@every_service
def test_5_7_no_ssh_server_runs(name):
    """Nothing starts one, and its port is not open."""
    assert "ssh" not in str(service(name).get("command", ""))
    assert not any(str(port).endswith(":22") for port in service(name).get("ports", []))


@every_service
def test_5_8_no_privileged_port_is_mapped(name):
    """What is published is above 1023, on both sides."""
    published = [re.findall(r"\d{2,}", port)[-2:] for port in service(name).get("ports", [])]
    assert [pair for pair in published if min(map(int, pair)) < 1024] == []


def test_5_9_only_needed_ports_are_open():
    """Alone, the main file publishes the edge's one port; nothing else of any service."""
    opened = {name: each["ports"] for name, each in MAIN["services"].items() if "ports" in each}
    assert opened == {"edge": ["${EDGE_ADDRESS:-0.0.0.0}:${EDGE_PORT:-8443}:8443"]}
    assert service("edge")["profiles"] == ["edge"]


@every_service
def test_5_10_the_host_s_network_is_not_shared(name):
    """Every service is on networks of this project."""
    assert "network_mode" not in service(name)
    assert set(service(name)["networks"]) <= set(MAIN["networks"])


@every_service
def test_5_11_memory_is_limited(name):
    """With a limit for memory, and no swap on top of it."""
    assert service(name)["mem_limit"] == service(name)["memswap_limit"]


@pytest.mark.parametrize("name", LISTENING)
def test_5_12_processor_time_is_limited(name):
    """Of what clients can keep busy."""
    assert 0 < service(name)["cpus"] <= 2


@every_hardened_service
def test_5_13_the_root_filesystem_is_read_only(name):
    """What can be written is in memory, small, and not executable."""
    assert service(name)["read_only"] is True
    options = [mount.partition(":")[2].split(",") for mount in service(name)["tmpfs"]]
    assert options
    for each in options:
        assert {"size=1m", "size=4k"} & set(each)
        assert "ro" in each or {"noexec", "nosuid", "nodev"} <= set(each)


def test_5_14_traffic_is_bound_to_an_interface_where_it_is_for_this_machine():
    """What the developer's file publishes is on loopback."""
    published = [port for each in OVERRIDE["services"].values() for port in each.get("ports", [])]
    assert len(published) == 6
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_5_15_restarts_after_a_failure_are_bounded_where_it_ends_by_itself():
    """The one-shot is tried three times. What serves comes back: each start waits longer."""
    assert {name: each["restart"] for name, each in MAIN["services"].items()} == {
        **dict.fromkeys(MAIN["services"], "unless-stopped"),
        "topics": "on-failure:3",
    }


@every_service
def test_5_16_the_host_s_process_namespace_is_not_shared(name):
    """Nobody sees another's processes."""
    assert "pid" not in service(name)


@every_service
def test_5_17_the_host_s_ipc_namespace_is_not_shared(name):
    """None, or a private one."""
    assert service(name).get("ipc", "none") == "none"


@every_service
def test_5_18_host_devices_are_not_exposed(name):
    """Not one."""
    assert "devices" not in service(name)


@every_hardened_service
def test_5_19_core_dumps_are_off(name):
    """Limits are set where they matter: a core file would hold what people said."""
    assert service(name)["ulimits"] == {"core": 0}


@every_service
def test_5_20_mounts_are_not_propagated(name):
    """Nothing is mounted `shared`; what can be written is where something keeps its data."""
    writable = [source for source, _, mode in volumes(name) if mode != "ro"]
    assert writable == {"kafka": ["kafka-data"], "prometheus": ["prometheus-data"]}.get(name, [])
    assert {mode for _, _, mode in volumes(name)} <= {"ro", "rw"}


@every_service
def test_5_21_the_host_s_uts_namespace_is_not_shared(name):
    """Nobody names the host."""
    assert "uts" not in service(name)


@every_service
def test_5_22_the_default_seccomp_profile_is_on(name):
    """System calls are filtered: nothing says `unconfined`, for AppArmor neither."""
    assert "unconfined" not in str(service(name)["security_opt"])


@every_service
def test_5_25_the_cgroup_is_docker_s_own(name):
    """No service asks for another parent."""
    assert not {"cgroup", "cgroup_parent"} & set(service(name))


@every_service
def test_5_26_no_new_privileges_can_be_gained(name):
    """By no set-user-id program."""
    assert service(name)["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", sorted({*OTHERS, *LISTENING}))
def test_5_27_health_is_checked_while_running(name):
    """Of everything that stays."""
    assert service(name)["healthcheck"]["test"]


@every_service_of_ours
def test_5_28_images_are_named_by_their_version(name):
    """What runs is what was built under that version, never `latest`."""
    assert re.fullmatch(r"speech-(gateway|asr|edge):\$\{VERSION:-[^}]+\}", service(name)["image"])


@pytest.mark.parametrize("name", OTHERS)
def test_5_28_other_people_s_images_have_their_version_too(name):
    """So that a pull changes nothing by itself."""
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", service(name)["image"])


@pytest.mark.parametrize("name", LISTENING)
def test_5_29_the_number_of_processes_is_limited(name):
    """A fork bomb ends at it."""
    assert 0 < service(name)["pids_limit"] <= 128


@every_service
def test_5_30_docker_s_default_bridge_is_not_used(name):
    """Every service names its networks."""
    assert service(name)["networks"]


def test_5_30_inner_networks_reach_nothing_outside():
    """Only the edge's own network is an ordinary one, and the edge alone is on it."""
    inner = {name for name, each in MAIN["networks"].items() if (each or {}).get("internal")}
    assert inner == {"pipeline", "ingress"}
    outside = {name for name, each in MAIN["services"].items() if set(each["networks"]) - inner}
    assert outside == {"edge"}


@every_service
def test_5_31_the_host_s_user_namespace_is_not_shared(name):
    """Where the daemon remaps users, it does so for all."""
    assert "userns_mode" not in service(name)


@every_service
def test_5_32_the_docker_socket_is_not_mounted(name):
    """Nobody can speak to the daemon."""
    assert "docker.sock" not in str(service(name).get("volumes", []))


@every_service
def test_logs_are_bounded(name):
    """A log that is written by clients' doings cannot fill the disk."""
    assert service(name)["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


def test_prometheus_runs_as_its_image_s_user_and_keeps_a_bounded_past():
    """Neither time nor size can fill the disk; nothing lets who reaches it change anything."""
    prometheus = service("prometheus")
    assert prometheus["user"] == "65534:65534"
    assert {
        "--storage.tsdb.retention.time=7d",
        "--storage.tsdb.retention.size=512MB",
    } <= set(prometheus["command"])
    assert not [each for each in prometheus["command"] if "enable" in each]


@every_service_of_ours
def test_secrets_come_from_outside_alone(name):
    """No secret stands in the file: each is what the operator's environment says, or nothing."""
    environment = service(name)["environment"]
    given = {key: value for key, value in environment.items() if SECRET.search(key)}
    assert {
        key: re.sub(r"^\$\{\w+:-\}$", "", value) for key, value in given.items()
    } == dict.fromkeys(given, "")
