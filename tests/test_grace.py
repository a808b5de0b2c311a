"""What is deployed gives each service the time that it needs to stop, and a rollout cuts nobody.

A gateway's time is the sum of what can follow each other: the hook before SIGTERM, the drain, the
delivery of what is cut off at its end, and the closing. A client who waits for its text ends with
the drain (docs/protocol.md), so that this adds nothing.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from speech_gateway.settings import GatewaySettings
from support.checkout import ROOT

CLOSE_SECONDS = 5
"""A client's close, the producer's, and some for a busy machine."""
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
KUBERNETES = ROOT / "deploy" / "kubernetes"
Environment = dict[str, str]


class Deployed(NamedTuple):
    """A gateway as it is deployed."""

    name: str
    grace_seconds: float
    pre_stop_seconds: float
    environment: Environment


def documented() -> Environment:
    """Return the variables that docs/scaling.md sets for many replicas."""
    text = (ROOT / "docs/scaling.md").read_text()
    (block,) = re.findall(r"^cat >>\.env <<END\n(.*?)^END$", text, re.MULTILINE | re.DOTALL)
    return dict(line.split("=", 1) for line in block.splitlines())


def seconds(environment: Environment, name: str) -> float:
    """Return a setting of a gateway that runs with these variables."""
    field = next(each for each in GatewaySettings.model_fields.values() if each.alias == name)
    return float(environment.get(name) or field.default)


def longest_session(environment: Environment) -> float:
    """Return how long a client may be there: speaking, being stored, and waiting for its text."""
    names = ("MAX_SESSION_SECONDS", "DELIVERY_TIMEOUT_SECONDS", "RESULT_TIMEOUT_SECONDS")
    return sum(seconds(environment, name) for name in names)


def needed(gateway: Deployed) -> float:
    """Return how long a gateway may take to stop."""
    names = ("DRAIN_SECONDS", "DELIVERY_TIMEOUT_SECONDS")
    own = sum(seconds(gateway.environment, name) for name in names)
    return gateway.pre_stop_seconds + own + CLOSE_SECONDS


def grace(service: str) -> float:
    """Return how long compose waits for a service after SIGTERM; its own default is ten seconds."""
    return float(COMPOSE[service].get("stop_grace_period", "10s").removesuffix("s"))


def manifests(folder: Path) -> Iterator[dict[str, Any]]:
    """Return what the YAML files of a folder hold."""
    for file in sorted(folder.rglob("*.yaml")):
        yield from filter(None, yaml.safe_load_all(file.read_text()))


def deployed(folder: Path) -> Iterator[Deployed]:
    """Return the gateways: of compose, as it is and as docs/scaling.md sets it, and of a folder."""
    yield Deployed("compose", grace("gateway-service"), 0, {})
    yield Deployed("compose, many", grace("gateway-service"), 0, documented())
    found = list(manifests(folder))
    maps = [each.get("data", {}) for each in found if each.get("kind") == "ConfigMap"]
    shared = {name: str(value) for each in maps for name, value in each.items()}
    for each in found:
        is_gateway = each.get("kind") == "Deployment" and "gateway" in each["metadata"]["name"]
        if is_gateway and "image" in _container(each):  # else it is a patch of an overlay
            yield _of_deployment(each, shared)


def _container(manifest: dict[str, Any]) -> dict[str, Any]:
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return dict(container)


def _of_deployment(manifest: dict[str, Any], shared: Environment) -> Deployed:
    pod = manifest["spec"]["template"]["spec"]
    container = _container(manifest)
    own = {each["name"]: str(each.get("value", "")) for each in container.get("env", ())}
    hook = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    allowed = pod.get("terminationGracePeriodSeconds", 30)
    return Deployed(manifest["metadata"]["name"], allowed, hook, shared | own)


def test_each_gateway_has_the_time_to_stop():
    """Hook, drain, delivery and close together are no longer than what it is given."""
    found = list(deployed(KUBERNETES))
    assert [each for each in found if each.grace_seconds < needed(each)] == []


@pytest.mark.parametrize(("allowed", "fits"), [(90, True), (81, False)])
def test_a_deployment_is_measured_by_what_it_sets(tmp_path, allowed, fits):
    """Its hook counts, its own variables win over those of a map, and the rest are defaults."""
    container = {
        "name": "gateway",
        "image": "speech-gateway",
        "env": [{"name": "DRAIN_SECONDS", "value": "65"}],
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
    }
    pod = {"terminationGracePeriodSeconds": allowed, "containers": [container]}
    every = [
        {"kind": "ConfigMap", "data": {"DRAIN_SECONDS": "9", "DELIVERY_TIMEOUT_SECONDS": "7"}},
        {
            "kind": "Deployment",
            "metadata": {"name": "speech-gateway"},
            "spec": {"template": {"spec": pod}},
        },
    ]
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump_all(every))
    *_, gateway = deployed(tmp_path)
    assert needed(gateway) == 82
    assert (gateway.grace_seconds >= needed(gateway)) is fits


def test_with_many_replicas_the_drain_is_longer_than_a_session():
    """So that whoever speaks when a gateway is stopped says it to the end, and gets the text."""
    assert seconds(documented(), "DRAIN_SECONDS") >= longest_session(documented())


def test_the_edge_has_the_time_to_let_the_longest_session_end():
    """Its own drain is 5 s longer than a session (`tests/test_edge_start.py`)."""
    assert grace("edge") >= longest_session({}) + CLOSE_SECONDS


KIB, MIB = 1 << 10, 1 << 20
STREAM_KIB = 2 * 32
"""Caddy's buffers of a stream, one for each direction."""
CLIENT_KIB = 76
"""The rest of a client at the edge, with TLS: docs/scaling.md has what was measured."""


def test_as_many_clients_as_the_edge_has_files_for_fit_into_its_memory():
    """A client takes two files; the number stands in docs/scaling.md."""
    edge = COMPOSE["edge"]
    clients = edge["ulimits"]["nofile"] // 2
    memory = int(edge["environment"]["GOMEMLIMIT"].removesuffix("MiB")) * MIB
    assert clients * (STREAM_KIB + CLIENT_KIB) * KIB <= memory
    assert memory < int(edge["mem_limit"].removesuffix("m")) * MIB
    assert f"{clients:,} clients" in (ROOT / "docs/scaling.md").read_text()
