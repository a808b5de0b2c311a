"""Fixtures that the tests of all members share."""

import os
from collections.abc import Callable, Iterator

import pytest
from speech_lib.testing.pipeline import Pipeline, missing_variable, open_pipeline


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


@pytest.fixture(scope="session")
def pipeline() -> Iterator[Pipeline]:
    """Run the tests that ask for it against real Kafka where the environment names one."""
    with open_pipeline(os.environ) as running:
        yield running


@pytest.fixture(scope="session")
def make_topic(pipeline: Pipeline) -> Callable[..., str]:
    """Return `make_topic(prefix="t", partitions=1)`, which makes a topic of its own."""
    return pipeline.make_topic
