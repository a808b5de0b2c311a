"""A real Kubernetes API server, as long as the tests here last."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.checkout import ROOT

INFRA = ROOT / os.environ.get("CI_INFRA", "../shared/infra")
OVERLAYS = ROOT / "deploy" / "kubernetes" / "overlays"
UP_SECONDS, DOWN_SECONDS, KUBECTL_SECONDS = 900, 120, 60
NAMESPACE = "speech"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run them with the containers: one cluster a machine, so one test after the other."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(UP_SECONDS + 300, method="signal"))


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes, by kubectl."""

    config: str

    def kubectl(
        self, *arguments: str, text: str | None = None, seconds: float = KUBECTL_SECONDS
    ) -> "subprocess.CompletedProcess[str]":
        """Run kubectl; its errors and warnings are on stderr."""
        return subprocess.run(  # noqa: S603 - kubectl
            ["kubectl", *arguments],  # noqa: S607
            input=text,
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | {"KUBECONFIG": self.config},
            timeout=seconds,
        )

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return what there is, as the API server has it."""
        done = self.kubectl("get", *arguments, "--namespace", NAMESPACE, "--output", "json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    @contextmanager
    def applied(self, manifest: str) -> Iterator["subprocess.CompletedProcess[str]"]:
        """Apply resources; afterwards their namespace is gone, and so are they."""
        try:
            yield self.kubectl("apply", "--filename", "-", text=manifest)
        finally:
            self.kubectl("delete", "namespace", NAMESPACE, seconds=DOWN_SECONDS)
            self.kubectl("delete", "gatewayclass", "--all", seconds=DOWN_SECONDS)


@contextmanager
def kubernetes(*options: str) -> Iterator[Cluster]:
    """Bring a Kubernetes up, and take it down; or take the one that TEST_KUBECONFIG names."""
    if given := os.environ.get("TEST_KUBECONFIG"):
        yield Cluster(given)
        return
    up = INFRA / "kube-up"
    if not os.access(up, os.X_OK) or shutil.which("kubectl") is None:
        pytest.skip(
            "needs kubectl, and a cluster for tests that TEST_KUBECONFIG names, or a folder with"
            " kube-up and kube-down that CI_INFRA names"
        )
    try:
        done = subprocess.run(  # noqa: S603
            [up, *options], check=False, capture_output=True, text=True, timeout=UP_SECONDS
        )
        assert done.returncode == 0, done.stderr
        line = next(each for each in done.stdout.splitlines() if each.startswith("export "))
        yield Cluster(line.partition("=")[2].strip("'\""))
    finally:
        subprocess.run(  # noqa: S603
            [INFRA / "kube-down"], check=False, capture_output=True, timeout=DOWN_SECONDS
        )


def rendered(overlay: str) -> str:
    """Return the resources of an overlay."""
    done = subprocess.run(  # noqa: S603
        ["kubectl", "kustomize", OVERLAYS / overlay],  # noqa: S607
        check=False,
        capture_output=True,
        text=True,
        timeout=KUBECTL_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Return a Kubernetes without nodes, which knows the resources of KEDA and Envoy Gateway."""
    with kubernetes("--crds") as running:
        yield running
