"""The profile `observability`: alerts that are proved, and a Prometheus that finds every container.

What the rules and the dashboard ask for is compared with the services' own pages in
`tests/test_alerts.py`, without Docker.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import promtool
from support.waiting import until

FOLDER = promtool.ROOT / "deploy/observability"
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text())
(GROUP,) = ALERTS["groups"]
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
URL = "http://127.0.0.1:9090"
NOTICED_SECONDS = 120
"""A lookup of names, a scrape and an evaluation, 15 s each; and a start of what was stopped."""


# The files


@pytest.fixture
def checker(request: pytest.FixtureRequest) -> None:
    """Skip where there is neither a promtool nor Docker to run one."""
    if shutil.which("promtool") is None:
        request.getfixturevalue("docker_client")


@pytest.mark.usefixtures("checker")
def test_promtool_accepts_the_configuration():
    """With the rules that it names."""
    done = promtool.run("check", "config", "prometheus.yml", folder=FOLDER)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"SUCCESS: {len(GROUP['rules'])} rules found" in done.stdout


@pytest.mark.usefixtures("checker")
def test_every_alert_fires_where_it_should_and_nowhere_else():
    """With its labels, its texts and the time that it waits."""
    done = promtool.run("test", "rules", "alerts_test.yml", folder=FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("checker")
def test_an_alert_that_is_dead_or_eager_is_found(tmp_path: Path):
    """Any of them whose threshold was never passed, or always, would not pass the cases."""
    for rule in GROUP["rules"]:
        for how, threshold in (("dead", "> 1e9"), ("eager", ">= 0")):
            expression = re.sub(r"(>|==) [0-9.]+", threshold, rule["expr"])
            assert expression != rule["expr"]
            folder = tmp_path / f"{rule['alert']}-{how}"
            folder.mkdir()
            rules = [
                each | {"expr": expression} if each is rule else each for each in GROUP["rules"]
            ]
            broken = {"groups": [GROUP | {"rules": rules}]}
            (folder / "alerts.yml").write_text(yaml.safe_dump(broken))
            (folder / "alerts_test.yml").write_text((FOLDER / "alerts_test.yml").read_text())
    cases = sorted(str(each.relative_to(tmp_path)) for each in tmp_path.glob("*/alerts_test.yml"))
    done = promtool.run("test", "rules", *cases, folder=tmp_path)
    assert re.findall(r"Unit Testing: +(\S+)", done.stdout) == cases
    assert "SUCCESS" not in done.stdout
    assert len(re.findall("^ +FAILED:$", done.stderr, re.MULTILINE)) == len(cases)


def as_rules(expressions: list[str]) -> str:
    """Return expressions as rules, which is what promtool can check: it knows no dashboards."""
    named = [
        {"record": f"panel:{number}", "expr": each.replace("$__rate_interval", "1m")}
        for number, each in enumerate(expressions)
    ]
    return yaml.safe_dump({"groups": [{"name": "panels", "rules": named}]})


@pytest.mark.usefixtures("checker")
@pytest.mark.parametrize(("more", "code"), [([], 0), (["sum by (rate(up[1m])"], 1)])
def test_every_panel_asks_in_good_promql(more, code):
    """And one that did not would be found."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    done = promtool.run("check", "rules", stdin=as_rules(expressions + more))
    assert done.returncode == code, done.stdout + done.stderr


# What runs


class Prometheus:
    """Prometheus in a stack, asked from inside: it is not published."""

    def __init__(self, stack: Any) -> None:
        self.stack = stack
        self.container = stack.container("prometheus")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query, each with its labels and its value."""
        command = ["promtool", "query", "--format=json", "instant", URL, expression]
        answer = self.container.exec_run(command)
        assert answer.exit_code == 0, answer.output.decode()
        found = json.loads(answer.output)
        return [each["metric"] | {"value": float(each["value"][1])} for each in found]

    def wait_for(self, expression: str, fits: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Ask until the answer fits."""
        until(lambda: self.query(expression), fits, seconds=NOTICED_SECONDS, every=1)


@pytest.fixture(scope="module")
def prometheus(production) -> Prometheus:
    """Run the stack of production, with two recognisers, and watch it."""
    scale = ("--scale", "asr-service=2")
    started = production.compose("--profile", "observability", "up", "--wait", *scale)
    assert started.returncode == 0, started.stderr
    return Prometheus(production)


def up(found: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return which of a job's targets are up."""
    jobs: dict[str, list[float]] = {}
    for each in found:
        jobs.setdefault(each["job"], []).append(each["value"])
    return jobs


def test_every_container_of_both_services_is_read(prometheus):
    """However many there are, without a word in the configuration about it."""
    wanted = {"prometheus": [1], "speech-gateway": [1], "speech-asr": [1, 1]}
    prometheus.wait_for("up", lambda found: up(found) == wanted)
    prometheus.wait_for(
        "speech_gateway_ready or speech_asr_ready",
        lambda found: [each["value"] for each in found] == [1, 1, 1],
    )


def test_where_all_is_well_nothing_is_told(prometheus):
    """All rules are evaluated, without an error, and no alert is even pending."""
    prometheus.wait_for(
        "sum(prometheus_rule_evaluations_total)",
        lambda found: found[:1] != [] and found[0]["value"] >= len(GROUP["rules"]),
    )
    failures = prometheus.query("sum(prometheus_rule_evaluation_failures_total)")
    assert [each["value"] for each in failures] == [0]
    prometheus.wait_for("ALERTS", lambda found: found == [])


def test_its_process_has_no_privileges(prometheus):
    """Its image's user, no capabilities, none to be gained, no core dumps, a read-only root."""
    lines = prometheus.container.exec_run(["cat", "/proc/1/status"]).output.decode().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert status["Uid"] == status["Gid"] == ["65534"] * 4
    capabilities = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    assert {name: status[name] for name in capabilities} == {
        name: ["0" * 16] for name in capabilities
    }
    assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
    host = prometheus.container.attrs["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["Memory"] == host["MemorySwap"] == 256 << 20
    assert (host["NanoCpus"], host["PidsLimit"]) == (500_000_000, 64)
    (core,) = [each for each in host["Ulimits"] if each["Name"] == "core"]
    assert (core["Soft"], core["Hard"]) == (0, 0)
    refused = prometheus.container.exec_run(["touch", "/etc/prometheus/prometheus.yml"])
    assert refused.exit_code != 0


@pytest.mark.parametrize(
    ("stopped", "alert"),
    [
        ("gateway-service", {"alertname": "SpeechTargetDown", "job": "speech-gateway"}),
        ("kafka", {"alertname": "SpeechNotReady", "job": "speech-gateway"}),
    ],
)
def test_what_is_stopped_is_told_until_it_is_back(prometheus, stopped, alert):
    """The alert is pending a few scrapes later, and gone when all is well again."""
    wanted = alert.items()
    prometheus.stack.compose("stop", stopped)
    try:
        prometheus.wait_for("ALERTS", lambda found: any(wanted <= each.items() for each in found))
    finally:
        prometheus.stack.compose("start", stopped)
    prometheus.wait_for("ALERTS", lambda found: not any(wanted <= each.items() for each in found))
