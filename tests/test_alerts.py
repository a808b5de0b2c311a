"""`deploy/observability`: alerts and dashboard ask for what the services' own pages have.

Read from the files, without Prometheus. What `promtool` says of them, and what a running Prometheus
makes of them, is in `tests/e2e/test_observability.py`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain, combinations
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest
from speech_asr.metrics import Metrics as AsrMetrics
from speech_gateway.metrics import Metrics as GatewayMetrics
from speech_tools.operations import metrics_page
from support.documents import parse

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy/observability"
CONFIG = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
CASES = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RUNBOOK = "docs/runbook.md"

JOBS = {job["job_name"] for job in CONFIG["scrape_configs"]}
OF_PROMETHEUS = {
    "up": {},
    "ALERTS": {"alertname": {rule["alert"] for rule in RULES}, "alertstate": {"firing"}},
}
"""What Prometheus adds itself."""

PAGE_BYTES = 256_000
LIMITS = {
    "body_size_limit": "256KB",
    "sample_limit": 2000,
    "label_limit": 20,
    "label_name_length_limit": 100,
    "label_value_length_limit": 500,
}
MAX_PARTITIONS = 1_000
"""As `TOPIC_PARTITIONS` has it."""

by_alert = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


@dataclass(frozen=True)
class Selector:
    """A metric as an expression asks for it: its name, and the matchers of its labels."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]


@cache
def known() -> dict[str, dict[str, set[str]]]:
    """Return every series that there can be: its labels by name, with the values they have."""
    asr = AsrMetrics()
    asr.show_lag({("speech.audio.ingress", partition): 0 for partition in range(6)})
    series: dict[str, dict[str, set[str]]] = dict(OF_PROMETHEUS)
    for registry in (GatewayMetrics().registry, asr.registry):
        page = metrics_page.read(generate_latest(registry).decode())
        for name, samples in page.samples.items():
            labels = series.setdefault(name, {})
            for label, value in chain.from_iterable(each.items() for each, _ in samples):
                labels.setdefault(label, set()).add(value)
    return {name: {"job": JOBS, **labels} for name, labels in series.items()}


def selectors(expression: str) -> Iterator[Selector]:
    """Yield what an expression in PromQL asks for, aggregations and functions left out."""
    plain = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", expression)
    plain = re.sub(r"\[[^]]*\]", " ", plain)
    names = r"(?<![\w\"=~.+-])([a-zA-Z_:][\w:]*)\b(?!\s*\()(?:\{([^}]*)\})?"
    for name, matchers in re.findall(names, plain):
        if name not in {"or", "and", "unless"}:
            yield Selector(name, tuple(re.findall(r"(\w+)\s*(=~|!=|=)\s*\"([^\"]*)\"", matchers)))


def grouped(expression: str) -> set[str]:
    """Return the labels that an expression aggregates by."""
    lists = re.findall(r"\bby\s*\(([^)]*)\)", expression)
    return {label.strip() for each in lists for label in each.split(",")}


def unknown(expression: str) -> list[str]:
    """Return what an expression asks for that no page has."""
    found = list(selectors(expression))
    missing = [each.name for each in found if each.name not in known()]
    there = [each for each in found if each.name in known()]
    wrong = [
        f"{each.name}{{{label}{operator}{value}}}"
        for each in there
        for label, operator, value in each.matchers
        if not any(
            re.fullmatch(value if operator == "=~" else re.escape(value), one)
            for one in known()[each.name].get(label, ())
        )
    ]
    labels = {"instance", *chain.from_iterable(known()[each.name] for each in there)}
    return [*missing, *wrong, *(grouped(expression) - labels)]


@pytest.mark.parametrize(
    ("expression", "problems"),
    [
        ('sum by (job, code) (rate(speech_gateway_refusals_total{code!="draining"}[5m])) > 1', []),
        ('up{job=~"speech-.+"} == 0 or absent(up{job="speech-asr"})', []),
        ("rate(speech_gateway_refused_total[5m]) > 0.1", ["speech_gateway_refused_total"]),
        ('up{job="asr"}', ["up{job=asr}"]),
        (
            'speech_gateway_refusals_total{code="full", why=~".+"}',
            ["speech_gateway_refusals_total{code=full}", "speech_gateway_refusals_total{why=~.+}"],
        ),
        ("sum by (outcome) (speech_gateway_refusals_total)", ["outcome"]),
        ("speech_asr_ready or speech_tts_ready", ["speech_tts_ready"]),
    ],
)
def test_what_no_page_has_is_noticed(expression, problems):
    """Names, labels, the values that they are compared with, and what is summed by."""
    assert unknown(expression) == problems


# Alerts


@by_alert
def test_an_alert_asks_for_what_the_services_have(rule):
    """Under the names, labels and values of their own pages."""
    assert list(selectors(rule["expr"]))
    assert unknown(rule["expr"]) == []


@by_alert
def test_an_alert_says_what_it_means_and_where_to_read_on(rule):
    """Its severity is one of two; the runbook has a heading of its name."""
    assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    anchor = rule["alert"].lower()
    assert rule["annotations"]["runbook_url"] == f"{RUNBOOK}#{anchor}"
    assert anchor in parse((ROOT / RUNBOOK).read_text()).anchors


def test_the_runbook_tells_of_no_alert_that_is_not_there():
    """What was renamed here is renamed there."""
    headings = re.findall(r"^## (Speech\w+)$", (ROOT / RUNBOOK).read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]


@by_alert
def test_an_alert_is_proved_to_fire_and_to_be_silent(rule):
    """Each has a case of both kinds, so that neither a dead nor an eager one goes unnoticed."""
    proofs = [
        bool(proof["exp_alerts"])
        for case in CASES
        for proof in case["alert_rule_test"]
        if proof["alertname"] == rule["alert"]
    ]
    assert set(proofs) == {True, False}


def test_the_cases_are_of_series_that_there_can_be():
    """A case about a metric that nobody has would prove nothing."""
    series = [each["series"] for case in CASES for each in case["input_series"]]
    for each in series:
        (selector,) = selectors(re.sub(r'instance="[^"]*"(, )?', "", each))
        assert unknown(re.sub(r', instance="[^"]*"', "", each)) == []
        labels = {label for label, _, _ in selector.matchers}
        assert labels == known()[selector.name].keys()


# The dashboard


def test_every_panel_asks_for_what_the_services_have():
    """As the alerts do."""
    asked = [target["expr"] for panel in PANELS for target in panel["targets"]]
    assert len(asked) > len(PANELS) > 20
    assert [problem for each in asked for problem in unknown(each)] == []


def test_every_metric_of_the_services_is_on_the_dashboard():
    """But for the version, and the number of open files and the like."""
    asked = {
        each.name
        for panel in PANELS
        for target in panel["targets"]
        for each in selectors(target["expr"])
    }
    named = {re.sub("_(bucket|count|sum)$", "", name) for name in asked}
    there = {
        re.sub("_(bucket|count|sum)$", "", name)
        for name in known()
        if name.startswith("speech_") and not name.endswith("_created")
    }
    assert there - named == {"speech_gateway_info", "speech_asr_info"}


def test_the_dashboard_is_of_whatever_prometheus_is_chosen():
    """No address of a data source is in it: the one variable says which."""
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    sources = [each["datasource"] for panel in PANELS for each in (panel, *panel["targets"])]
    assert {json.dumps(each) for each in sources} == {
        json.dumps({"type": "prometheus", "uid": f"${{{variable['name']}}}"})
    }


def test_every_panel_is_explained_and_has_its_place():
    """None lies on another one, or beside the grid of 24 columns."""
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert [panel["id"] for panel in PANELS if not (panel["title"] and panel["description"])] == []
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert [place for place in places if place["x"] + place["w"] > 24] == []
    overlapping = [
        (a, b)
        for a, b in combinations(places, 2)
        if a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    ]
    assert overlapping == []


def test_prometheus_bounds_what_a_service_tells_it():
    """A service that was taken over fills no memory at once; nothing is left without a bound."""
    assert {name: value for name, value in CONFIG["global"].items() if "limit" in name} == LIMITS
    assert [job for job in CONFIG["scrape_configs"] if any("limit" in name for name in job)] == []


def test_our_own_pages_fit_under_the_bounds():
    """Also that of a recogniser of as many partitions as there can be."""
    asr = AsrMetrics()
    asr.show_lag({("speech.audio.ingress", partition): 0 for partition in range(MAX_PARTITIONS)})
    for registry in (GatewayMetrics().registry, asr.registry):
        samples = [each for family in registry.collect() for each in family.samples]
        assert len(samples) * 1.5 < LIMITS["sample_limit"]
        assert len(generate_latest(registry)) * 2 < PAGE_BYTES
        for sample in samples:
            assert len(sample.labels) * 2 < LIMITS["label_limit"]
            named = [sample.name, *sample.labels]
            assert max(map(len, named)) * 1.5 < LIMITS["label_name_length_limit"]
            assert (
                max(map(len, [sample.name, *sample.labels.values()])) * 2
                < (LIMITS["label_value_length_limit"])
            )
