"""What the containers of the services may do: read from inside, and tried."""

import re
import subprocess
from importlib.metadata import version

import pytest
from packaging.version import Version
from support.checkout import ROOT

SERVICES = {
    "gateway-service": {
        "memory": 256 << 20,
        "cpus": 1.0,
        "pids": 64,
        "writable": ["/tmp"],  # noqa: S108
        "volumes": None,
    },
    # The worker processes of the recogniser share semaphores.
    "asr-service": {
        "memory": 1536 << 20,
        "cpus": 2.0,
        "pids": 128,
        "writable": ["/dev/shm", "/tmp"],  # noqa: S108
        "volumes": [f"{ROOT / 'models'}:/models:ro"],
    },
}
SMALL_BYTES = 1 << 20

IMAGES: dict[str, set[str]] = {
    "gateway-service": {"speech_lib", "speech_gateway"},
    "asr-service": {"speech_lib", "speech_asr"},
    "tools": {"speech_lib", "speech_tools"},
    "edge": set(),
}
"""By the services that run them, with our packages that are in them."""

READING = ("/usr/share/doc/", "/usr/share/man/")
UNWANTED = {
    "installers": re.compile(
        r"/(pip([\d.]+|-[^/]*)?|ensurepip|setuptools(-[^/]*)?|flit(_core)?|uv|[^/]+\.whl)$"
    ),
    "compilers": re.compile(
        r"/s?bin/([^/]+-)?(cc|gcc|g\+\+|c\+\+|cpp|clang|rustc|as|ld|make)(-[\d.]+)?$"
    ),
    "doubles and tests": re.compile(r"/speech_\w+/(testing|tests?)\b|/_?pytest/"),
}
OURS = re.compile(r"/site-packages/(speech_[a-z]+)/")

STATUS = """
import json
lines = open("/proc/1/status").read().splitlines()
status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
(core,) = [line.split() for line in open("/proc/1/limits") if line.startswith("Max core file size")]
print(json.dumps({
    "uids": status["Uid"], "gids": status["Gid"],
    "capabilities": [status["Cap" + name][0] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")],
    "no_new_privileges": status["NoNewPrivs"], "seccomp": status["Seccomp"], "core": core[4:6],
}))
"""
WRITABLE = """
import json, os
tried, done = 0, {}
for directory, _, _ in os.walk("/"):
    name = os.path.join(directory, ".written-by-a-test")
    tried += 1
    try:
        handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError:
        continue
    os.close(handle)
    os.unlink(name)
    size = os.statvfs(directory)
    done[directory] = size.f_blocks * size.f_frsize
print(json.dumps({"tried": tried, "done": done}))
"""
OVERWRITABLE = """
import json, os
done = []
for directory, _, names in os.walk("/"):
    if directory.startswith(("/proc", "/sys", "/dev")):
        continue
    for name in names:
        try:
            os.close(os.open(os.path.join(directory, name), os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            continue
        done.append(os.path.join(directory, name))
print(json.dumps(done))
"""
REACH = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def reach(target):
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError as error:
        return type(error).__name__
    return "reached"

with ThreadPoolExecutor(16) as threads:
    print(json.dumps(dict(zip(sys.argv[1:], threads.map(reach, sys.argv[1:])))))
"""


@pytest.mark.parametrize("service", SERVICES)
def test_the_process_has_no_privileges(stack, service):
    """User 1000, no capabilities, none to be gained, system calls filtered, no core dumps."""
    assert stack.python(service, STATUS) == {
        "uids": ["1000"] * 4,
        "gids": ["1000"] * 4,
        "capabilities": ["0" * 16] * 5,
        "no_new_privileges": ["1"],
        "seccomp": ["2"],
        "core": ["0", "0"],
    }


@pytest.mark.parametrize("service", SERVICES)
def test_the_container_is_limited(stack, service):
    """Memory without swap on top, processor time and processes are bounded as designed."""
    host = stack.container(service).attrs["HostConfig"]
    limits = SERVICES[service]
    assert {
        "memory": host["Memory"],
        "memory and swap": host["MemorySwap"],
        "cpus": host["NanoCpus"] / 1e9,
        "pids": host["PidsLimit"],
        "read-only root": host["ReadonlyRootfs"],
        "privileged": host["Privileged"],
        "volumes": host["Binds"],
    } == {
        "memory": limits["memory"],
        "memory and swap": limits["memory"],
        "cpus": limits["cpus"],
        "pids": limits["pids"],
        "read-only root": True,
        "privileged": False,
        "volumes": limits["volumes"],
    }


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_written_but_on_a_small_tmpfs(stack, service):
    """Of all directories only those of a megabyte in memory take a file; no file can be changed."""
    found = stack.python(service, WRITABLE)
    assert found["tried"] > 1000
    assert found["done"] == dict.fromkeys(SERVICES[service]["writable"], SMALL_BYTES)
    assert stack.python(service, OVERWRITABLE) == []


def test_kafka_and_registry_cannot_be_reached_from_the_ingress_network(stack):
    """Who is on the clients' network reaches the gateway, and neither broker nor registry."""
    closed = {
        f"{host}:{port}"
        for service, port in (("kafka", 9092), ("kafka", 29092), ("schema-registry", 8081))
        for host in (service, *_addresses(stack, service))
    }
    gateway = "gateway-service:8000"
    reached = stack.run_on("ingress", REACH, gateway, *sorted(closed))
    assert reached.pop(gateway) == "reached"
    assert set(reached) == closed
    assert "reached" not in reached.values()


def _addresses(stack, service):
    networks = stack.container(service).attrs["NetworkSettings"]["Networks"]
    return [each["IPAddress"] for each in networks.values()]


def files_of(image: str) -> list[str]:
    """Return the path of every file and directory of an image, also of those of root alone."""
    as_root = ("--rm", "--network", "none", "--user", "root", "--entrypoint", "find")
    done = subprocess.run(  # noqa: S603 - an image of ours
        ["docker", "run", *as_root, image, "/", "-xdev"],  # noqa: S607 - the one on PATH
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("service", "packages"), IMAGES.items())
def test_the_image_holds_what_it_runs_and_no_more(stack, service, packages):
    """On its file system: no installer, no compiler, no test double of ours, no other service."""
    built = stack.compose("build", service)
    assert built.returncode == 0, built.stderr
    image = stack.image(service)
    paths = [path for path in files_of(image) if not path.startswith(READING)]
    assert len(paths) > 300
    found = {kind: [path for path in paths if form.search(path)] for kind, form in UNWANTED.items()}
    assert found == {kind: [] for kind in UNWANTED}
    assert {ours[1] for path in paths if (ours := OURS.search(path))} == packages
    labels = stack.client.images.get(image).labels
    # 0.3.0-dev and 0.3.0.dev0 are the same version.
    assert Version(labels["org.opencontainers.image.version"]) == Version(version("speech-gateway"))
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert labels["org.opencontainers.image.source"]
