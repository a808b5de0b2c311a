"""On a real node: the overlay `local` runs as restricted pods, and a rollout cuts nobody."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from speech_tools.speakers import Tape
from support.checkout import ROOT
from support.fleet import Door, Speakers
from support.waiting import until

from .conftest import NAMESPACE, Cluster, kubernetes, rendered

pytestmark = [pytest.mark.full, pytest.mark.timeout(1_500)]

VERSION = yaml.safe_load((ROOT / "deploy/kubernetes/base/kustomization.yaml").read_text())
IMAGES = [f"{each['name']}:{each['newTag']}" for each in VERSION["images"]]
OTHERS = ["apache/kafka:4.1.0", "confluentinc/cp-schema-registry:8.0.0"]
# There are no names in this cluster, and one small node.
ADDRESSES = {"kafka": "10.96.0.50", "schema-registry": "10.96.0.51"}
DOOR = "10.96.0.52"
ENTRY = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "entry", "namespace": NAMESPACE},
    "spec": {
        "clusterIP": DOOR,
        "selector": {"app.kubernetes.io/name": "speech-gateway"},
        "ports": [{"port": 8000}],
    },
}
READY_SECONDS, ROLLOUT_SECONDS = 240, 300
CLIENTS = 4


def for_one_node(resource: dict[str, Any]) -> dict[str, Any]:
    """Give fixed addresses for names, ask for little, and hear by the engine without a model."""
    name = resource["metadata"]["name"]
    if resource["kind"] == "Service" and name in ADDRESSES:
        resource["spec"]["clusterIP"] = ADDRESSES[name]
    if "template" in resource.get("spec", {}):
        pod = resource["spec"]["template"]["spec"]
        pod["hostAliases"] = [{"ip": ip, "hostnames": [host]} for host, ip in ADDRESSES.items()]
        for container in pod["containers"]:
            container["resources"]["requests"] = {"cpu": "10m", "memory": "64Mi"}
    if resource["kind"] == "ConfigMap":
        resource["data"] |= {
            "ASR_ENGINE": "pocketsphinx",
            "MAX_SESSIONS_PER_SECOND_PER_ADDRESS": "1000",
            "MAX_AUDIO_SPEED": "1000",
        }
    if name == "speech-asr" and resource["kind"] == "Deployment":
        resource["spec"]["replicas"] = 1
    return resource


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Cluster]:
    """Return a cluster with one node on which the pipeline is ready."""
    with kubernetes("--node", "--load", *IMAGES, *OTHERS) as cluster:
        wanted = [for_one_node(each) for each in yaml.safe_load_all(rendered("local"))]
        with cluster.applied(yaml.safe_dump_all([*wanted, ENTRY])) as done:
            assert (done.returncode, done.stderr) == (0, "")
            try:
                roll_out(cluster, "status", READY_SECONDS)
            except AssertionError:
                print(cluster.kubectl("get", "pods,events", "-n", NAMESPACE).stdout)  # noqa: T201
                raise
            yield cluster


def roll_out(cluster: Cluster, what: str, seconds: float) -> None:
    """Begin a rollout of the services, or wait for its end."""
    for service in ("speech-gateway", "speech-asr"):
        done = cluster.kubectl(
            *("rollout", what, f"deployment/{service}", "--namespace", NAMESPACE), seconds=seconds
        )
        assert done.returncode == 0, done.stderr


def pods(cluster: Cluster, name: str) -> set[str]:
    """Return the pods of a service."""
    found = cluster.get("pods", "--selector", f"app.kubernetes.io/name={name}")
    return {each["metadata"]["name"] for each in found["items"]}


def test_the_pods_have_no_rights(pipeline):
    """As the processes themselves see it."""
    for service in ("speech-gateway", "speech-asr"):
        done = pipeline.kubectl(
            *("exec", f"deployment/{service}", "--namespace", NAMESPACE, "--"),
            *("grep", "-E", "^(Uid|CapEff|NoNewPrivs|Seccomp):", "/proc/self/status"),
        )
        told = dict(line.split(":", 1) for line in done.stdout.splitlines())
        seen = {name: value.split()[0] for name, value in told.items()}
        no_rights = {"Uid": "1000", "CapEff": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
        assert seen == no_rights, done.stderr


def test_a_rollout_cuts_nobody(pipeline):
    """All gateways and the recogniser are replaced; each who speaks ends with 1000, and a text."""
    door = Door(f"ws://{DOOR}:8000/ws/audio", "", None)
    speakers = asyncio.run(speak_through_a_rollout(pipeline, door))
    said = len(speakers.operations)
    print(f"{said} utterances, refused {dict(speakers.refusals)}")  # noqa: T201
    assert speakers.closes == {1000: said}
    assert speakers.texts == {"recognized": said}


async def speak_through_a_rollout(cluster: Cluster, door: Door) -> Speakers:
    tape = Tape.of(ROOT / "samples")
    speakers = Speakers(door, random.Random(CLIENTS), tape=tape, query="?results=text")  # noqa: S311
    before = pods(cluster, "speech-gateway")
    task = asyncio.create_task(speakers.speak(CLIENTS))
    try:
        await some_more(speakers)
        await asyncio.to_thread(roll_out, cluster, "restart", ROLLOUT_SECONDS)
        await asyncio.to_thread(roll_out, cluster, "status", ROLLOUT_SECONDS)
        await asyncio.to_thread(
            until,
            lambda: not pods(cluster, "speech-gateway") & before,
            seconds=ROLLOUT_SECONDS,
            every=2,
        )
        await some_more(speakers)
    finally:
        speakers.stop()
        await task
    return speakers


async def some_more(speakers: Speakers) -> None:
    """Wait until each has been accepted once more."""
    wanted = speakers.accepted + CLIENTS
    await asyncio.to_thread(until, lambda: speakers.accepted >= wanted, seconds=120, every=0.2)
