"""Readiness and admission, with made-up times."""

import pytest
from speech_lib.service.health import Health


@pytest.fixture
def health() -> Health:
    """Return a service that started at 100 and knows nothing yet."""
    return Health(["broker", "schema"], now=100.0)


def make_ready(health: Health, now: float) -> None:
    """Let all conditions hold."""
    for name in ("broker", "schema"):
        health.set(name, ok=True, now=now)


def test_before_anything_is_known_it_is_not_ready(health: Health) -> None:
    """Each condition has a reason from the start, and no client is admitted."""
    assert not health.ready
    assert health.reasons == {"broker": "not_yet_known", "schema": "not_yet_known"}
    assert health.not_ready_for(103.0) == 3.0
    assert not health.admits(100.0)


def test_one_condition_is_not_enough(health: Health) -> None:
    """What fails is told with its reason; what holds is not mentioned."""
    health.set("broker", ok=True, now=101.0)
    health.set("schema", False, "RegistryUnavailable", now=101.0)
    assert (health.ready, health.reasons) == (False, {"schema": "RegistryUnavailable"})
    assert not health.admits(101.0)


def test_ready_when_all_conditions_hold(health: Health) -> None:
    """Then there is no reason, and clients are admitted."""
    make_ready(health, 101.0)
    assert (health.ready, health.reasons) == (True, {})
    assert (health.not_ready_for(200.0), health.admits(200.0)) == (0.0, True)


@pytest.mark.parametrize(("now", "admitted"), [(110.0, True), (114.9, True), (115.0, False)])
def test_short_loss_refuses_nobody(health: Health, now: float, admitted) -> None:
    """Only after five seconds without the broker are clients refused."""
    make_ready(health, 101.0)
    health.set("broker", False, "_TRANSPORT", now=110.0)
    assert (health.ready, health.admits(now)) == (False, admitted)


def test_further_failures_do_not_restart_the_clock(health: Health) -> None:
    """What counts is since when it is not ready, whatever the reason."""
    make_ready(health, 101.0)
    health.set("broker", False, "_TRANSPORT", now=110.0)
    health.set("broker", False, "_ALL_BROKERS_DOWN", now=112.0)
    health.set("schema", False, "x", now=113.0)
    health.set("schema", ok=True, now=114.0)
    assert health.not_ready_for(115.0) == 5.0
    assert health.reasons == {"broker": "_ALL_BROKERS_DOWN"}


def test_recovery_starts_anew(health: Health) -> None:
    """After being ready again, the next loss has its own five seconds."""
    make_ready(health, 101.0)
    health.set("broker", False, "x", now=110.0)
    health.set("broker", ok=True, now=120.0)
    health.set("broker", False, "x", now=130.0)
    assert (health.not_ready_for(134.0), health.admits(134.0)) == (4.0, True)


def test_draining_refuses_at_once_and_for_good(health: Health) -> None:
    """Not even conditions that hold make a stopping service ready again."""
    make_ready(health, 101.0)
    health.drain(110.0)
    make_ready(health, 111.0)
    assert (health.ready, health.admits(110.0)) == (False, False)
    assert health.reasons == {"service": "draining"}
    assert health.not_ready_for(112.0) == 2.0


def test_drain_and_failure_are_both_told(health: Health) -> None:
    """An operator sees the whole picture."""
    make_ready(health, 101.0)
    health.drain(110.0)
    health.set("broker", False, "_TRANSPORT", now=111.0)
    assert health.reasons == {"service": "draining", "broker": "_TRANSPORT"}


def test_without_conditions_it_is_ready() -> None:
    """A service that depends on nothing is ready from the start."""
    health = Health([], now=0.0)
    assert (health.ready, health.admits(0.0)) == (True, True)


def test_unknown_condition_is_a_defect(health: Health) -> None:
    """A name that was not announced would be lost in a spelling mistake."""
    with pytest.raises(KeyError, match="brokr"):
        health.set("brokr", ok=True, now=101.0)
