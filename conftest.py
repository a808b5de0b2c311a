"""Fixtures that the tests of all members share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from speech_lib.testing.pipeline import Pipeline, missing_variable, open_pipeline
from speech_tools.models import manifest
from speech_tools.models.fetching import fetch
from support.described import frames_checked
from support.topics import Topics

MODELS = Path(__file__).parent / "models"
"""Where `speech models` puts them, in a checkout."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what some tests take: how long they look, and what they write."""
    group = parser.getgroup("speech")
    group.addoption(
        "--fuzz-seconds", type=int, default=10, help="how long to look for an input, each target"
    )
    group.addoption(
        "--speaker-seconds", type=int, default=600, help="how long many speak through the edge"
    )
    group.addoption(
        "--write-conformance", action="store_true", help="write the table of docs/conformance.md"
    )


def pytest_configure() -> None:
    """Refuse half a description of a real pipeline before any test runs."""
    if name := missing_variable(os.environ):
        raise pytest.UsageError(
            f"{name}: expected with the other of Kafka and registry, or neither"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what talks to a broker: that takes its time, and on Apache Kafka it can be run too."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "pipeline" in fixtures:
            item.add_marker("broker")
        if "pipeline" in fixtures or "cluster" in fixtures:
            item.add_marker("pipeline")


@pytest.fixture(autouse=True)
def described() -> Iterator[None]:
    """Fail a test in which a frame passed that `docs/asyncapi.yaml` does not describe."""
    with frames_checked() as complaints:
        yield
    assert complaints == []  # noqa: S101 - pytest's


@pytest.fixture(scope="session")
def pipeline() -> Iterator[Pipeline]:
    """Run the tests that ask for it against real Kafka where the environment names one."""
    with open_pipeline(os.environ) as running:
        yield running


@pytest.fixture(scope="session")
def make_topic(pipeline: Pipeline) -> Callable[..., str]:
    """Return `make_topic(prefix="t", partitions=1)`, which makes a topic of its own."""
    return pipeline.make_topic


@pytest.fixture(scope="session")
def model() -> Callable[[str], Path]:
    """Return `model(name)`, the directory of a model, which is fetched the first time."""

    def directory(name: str) -> Path:
        fetch(manifest.model(name), MODELS)
        return MODELS / name

    return directory


@pytest.fixture(scope="session")
def tiny_en(model: Callable[[str], Path]) -> Path:
    """The directory of the default model."""
    return model("tiny.en")


@pytest.fixture(scope="module")
def topics(pipeline: Pipeline, make_topic: Callable[..., str]) -> Iterator[Topics]:
    """Topics and a group of recognisers that only this module uses, under their variables."""
    variables = ("TOPIC_AUDIO_INGRESS", "TOPIC_ASR_TEXT", "TOPIC_DEAD_LETTER")
    names = {name: make_topic(name.lower()) for name in variables}
    topics = Topics(pipeline, {**names, "ASR_GROUP_ID": names["TOPIC_AUDIO_INGRESS"]})
    yield topics
    topics.registry.close()


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what the processes of this module log."""
    return tmp_path_factory.mktemp("logs")
