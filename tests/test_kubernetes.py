"""What `deploy/kubernetes` says of Kafka is what the services and docs/security.md say.

Whether a cluster takes it: `tests/kubernetes`. Whether it has time to stop: `test_grace.py`.
"""

from typing import Any

import pytest
import yaml
from speech_lib.topics import TopicsEnvironment
from support.acls import acls
from support.checkout import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
THREE_BROKERS = 3


def resources(path: str, kind: str) -> list[dict[str, Any]]:
    """Return the resources of a kind in a file."""
    every = yaml.safe_load_all((KUBERNETES / path).read_text(encoding="utf-8"))
    return [each for each in every if each["kind"] == kind]


def specs():
    """Return the topics that the one-shot makes by default."""
    return TopicsEnvironment(KAFKA_BOOTSTRAP_SERVERS="kafka:9092").specs()


def test_strimzi_has_the_topics_that_the_job_makes():
    """With their limits, and on three brokers."""
    found = resources("overlays/strimzi/topics.yaml", "KafkaTopic")
    assert [
        (each["metadata"]["name"], each["spec"]["partitions"], each["spec"]["config"])
        for each in found
    ] == [(spec.name, spec.partitions, spec.config()) for spec in specs()]
    assert {each["spec"]["replicas"] for each in found} == {THREE_BROKERS}


def test_strimzi_has_the_users_of_the_document():
    """With their rights and no other, as they are with `RESULTS=on`; the operator makes topics."""
    given = {
        (user["metadata"]["name"], acl["resource"]["type"], acl["resource"]["name"], each.upper())
        for user in resources("overlays/strimzi/users.yaml", "KafkaUser")
        for acl in user["spec"]["authorization"]["acls"]
        for each in acl["operations"]
    }
    wanted = {*acls("acls"), *acls("acls of results")}
    assert given == {each for each in wanted if each[0] != "topics"}


def test_there_are_never_more_recognisers_than_partitions():
    """The others would be idle."""
    (scaled,) = [
        each
        for each in resources("overlays/keda/scaling.yaml", "ScaledObject")
        if each["metadata"]["name"] == "speech-asr"
    ]
    (trigger,) = scaled["spec"]["triggers"]
    audio, *_ = specs()
    assert scaled["spec"]["maxReplicaCount"] <= audio.partitions
    assert trigger["metadata"]["topic"] == audio.name
    (deployment,) = resources("base/recogniser.yaml", "Deployment")
    assert deployment["spec"]["replicas"] <= audio.partitions


@pytest.mark.parametrize("user", ["gateway", "asr"])
def test_who_speaks_to_strimzi_names_its_user(user):
    """And finds the password where the operator puts it."""
    (patch,) = resources(f"overlays/strimzi/user-of-{user}.yaml", "Deployment")
    pod = patch["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["env"] == [{"name": "KAFKA_SASL_USERNAME", "value": user}]
    assert pod["volumes"][0]["secret"]["secretName"] == user
