"""`scripts/test`: its steps leave no test out, and run none twice; the workflows run them all."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
MARKERS = ("pipeline", "broker", "security", "e2e", "full")
NOT_ON_KAFKA = " and not broker"
"""What `scripts/test` adds to a selection where Docker runs these tests elsewhere."""


def selections(*, docker: bool) -> list[str]:
    """Return what each run of pytest selects: the quick one by the settings, others by `-m`."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    options = settings["tool"]["pytest"]["ini_options"]["addopts"]
    script = (ROOT / "scripts" / "test").read_text()
    (addition,) = set(re.findall(r'not_on_kafka="(.+)"', script))
    assert addition == NOT_ON_KAFKA
    script = script.replace("$not_on_kafka", addition if docker else "")
    if not docker:
        script = re.sub(r"^containers\(\) \{.+?^\}", "", script, flags=re.DOTALL | re.MULTILINE)
    return [options[options.index("-m") + 1], *re.findall(r'-m "([^"$]+)"', script)]


def combinations() -> list[dict[str, bool]]:
    """Return every set of markers that a test can have: what talks to a broker is a pipeline."""
    sets = (
        dict(zip(MARKERS, flags, strict=True))
        for flags in itertools.product([False, True], repeat=len(MARKERS))
    )
    return [each for each in sets if each["pipeline"] or not each["broker"]]


@pytest.mark.parametrize("docker", [True, False], ids=["with Docker", "without Docker"])
def test_each_test_is_run_by_one_step(docker):
    """By exactly one; what needs containers is left to a machine that has them."""
    selected = selections(docker=docker)
    wrong = [
        (markers, runs)
        for markers in combinations()
        if docker or not markers["e2e"] or markers["full"]
        for runs in [[each for each in selected if eval(each, {}, dict(markers))]]  # noqa: S307
        if len(runs) != 1
    ]
    assert wrong == []


def workflows() -> dict[str, dict]:
    """Return the files of the GitHub workflows and of the action that they share, by name."""
    paths = [
        *(ROOT / ".github").glob("workflows/*.yml"),
        *(ROOT / ".github").glob("actions/*/*.yml"),
    ]
    return {path.name: yaml.safe_load(path.read_text()) for path in paths}


def jobs() -> list[dict]:
    return [job for each in workflows().values() for job in each.get("jobs", {}).values()]


def test_the_jobs_run_every_step():
    """Side by side on every change, and all that there is by night."""
    runs = {step["run"] for job in jobs() for step in job["steps"] if "run" in step}
    steps = ("checks", "quick", "processes", "containers")
    own = {each for each in runs if each.startswith(".ci/run")}
    assert own == {f".ci/run --only {step}" for step in steps} | {".ci/run --full"}
    assert [job for job in jobs() if "timeout-minutes" not in job] == []


def test_every_action_is_pinned_by_its_commit():
    """A tag can be moved to other code; an action of this repository is at its own commit."""
    steps = [step for job in jobs() for step in job["steps"]]
    steps += workflows()["action.yml"]["runs"]["steps"]
    used = {step["uses"] for step in steps if "uses" in step}
    pinned = {each for each in used if re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", each)}
    assert used - pinned == {"./.github/actions/prepare"}
