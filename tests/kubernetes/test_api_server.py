"""A real API server takes every overlay without a word, and refuses what it should refuse.

Its admission holds the namespace to the restricted Pod Security Standard. A validator of schemas
finds none of the faults below.
"""

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from .conftest import OVERLAYS, Cluster, rendered

Manifest = dict[str, Any]
STRIMZI = "kafka.strimzi.io"
"""Its definitions are in no package: `test_strimzi.py` holds its resources to its Java model."""


def resources(text: str) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(text) if STRIMZI not in each["apiVersion"]]


def test_no_overlay_is_forgotten():
    """Each folder is tried."""
    assert {each.name for each in OVERLAYS.iterdir()} == {"local", "keda", "gateway-api", "strimzi"}


@pytest.mark.parametrize("overlay", ["local", "keda", "gateway-api", "strimzi"])
def test_an_overlay_is_taken_whole(cluster, overlay):
    """Every resource is created, and there is no warning: also of the pods it will make none."""
    wanted = resources(rendered(overlay))
    with cluster.applied(yaml.safe_dump_all(wanted)) as done:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count(" created") == len(wanted)


@pytest.fixture(scope="module")
def namespace(cluster) -> Iterator[None]:
    """Have the namespace, and nothing in it that a Deployment would need."""
    (wanted,) = [each for each in resources(rendered("local")) if each["kind"] == "Namespace"]
    with cluster.applied(yaml.safe_dump(wanted)):
        yield


def gateway() -> Manifest:
    """Return the gateway's Deployment."""
    (found,) = [
        each
        for each in resources(rendered("local"))
        if each["kind"] == "Deployment" and each["metadata"]["name"] == "speech-gateway"
    ]
    return found


def container(deployment: Manifest) -> Manifest:
    """Return the container of a Deployment."""
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return found


def other_labels(deployment: Manifest) -> None:
    deployment["spec"]["template"]["metadata"]["labels"] = {"app.kubernetes.io/name": "other"}


def long_port_name(deployment: Manifest) -> None:
    container(deployment)["ports"][0]["name"] = "the-websocket-port"


def no_rollout(deployment: Manifest) -> None:
    deployment["spec"]["strategy"]["rollingUpdate"] = {"maxSurge": 0, "maxUnavailable": 0}


def unknown_mount(deployment: Manifest) -> None:
    container(deployment)["volumeMounts"].append({"name": "models", "mountPath": "/models"})


def patient_liveness(deployment: Manifest) -> None:
    container(deployment)["livenessProbe"]["successThreshold"] = 2


def hook_longer_than_grace(deployment: Manifest) -> None:
    deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 4


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (other_labels, "`selector` does not match template `labels`"),
        (long_port_name, "must be no more than 15 characters"),
        (no_rollout, "may not be 0 when `maxSurge` is 0"),
        (unknown_mount, 'volumeMounts[1].name: Not found: "models"'),
        (patient_liveness, "livenessProbe.successThreshold: Invalid value: 2"),
        (hook_longer_than_grace, "preStop.sleep"),
    ],
)
def test_a_fault_is_refused(cluster, namespace, plant: Callable[[Manifest], None], said):
    """One that makes a rollout hang, or a stop cut people off."""
    faulty = gateway()
    plant(faulty)
    done = applied(cluster, faulty)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_pod_with_more_rights_is_warned_of(cluster, namespace):
    """So that the absence of a warning says something."""
    faulty = gateway()
    del faulty["spec"]["template"]["spec"]["securityContext"]
    assert 'Warning: would violate PodSecurity "restricted' in applied(cluster, faulty).stderr


def applied(cluster: Cluster, manifest: Manifest) -> "subprocess.CompletedProcess[str]":
    """Have the API server judge a resource, and make nothing of it."""
    apply = ("apply", "--dry-run=server", "--filename", "-")
    return cluster.kubectl(*apply, text=yaml.safe_dump(manifest))
