"""Sum up the replicas of a service, and put each into a line for people.

Pure. Used by `top.screen` and, for programs, by `top.command`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from speech_tools.top.figures import Figures, Gateway, Recogniser, State
from speech_tools.top.lines import NOT_KNOWN, Line, number, sessions


def condition(state: State) -> str:
    """Say whether a service is there and ready, and why not."""
    if state.problem:
        return state.problem
    if state.ready:
        return "ready"
    reasons = ", ".join(f"{of} {reason}" for of, reason in state.reasons.items())
    return f"not ready: {reasons}"


def total(values: Iterable[float | None]) -> float | None:
    """Return the sum of what is known; nothing where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def replica_line(address: str, now: Figures) -> Line:
    """Return the line of one replica; its bar is of sessions, or of what is not read yet."""
    text, bar = _figures([now])
    if now.state.problem:
        return Line(address, now.state.problem, None, bad=True)
    if not now.state.ready:
        return Line(address, f"{text}, {condition(now.state)}", bar, bad=True)
    return Line(address, text, bar)


def fleet_line(all_now: Sequence[Figures]) -> Line:
    """Return the line of all replicas together."""
    text, bar = _figures(all_now)
    return Line(f"all {len(all_now)}", text, bar)


def fleet_json(urls: Sequence[str], all_now: Sequence[Figures]) -> dict[str, Any]:
    """Return the figures of each replica, and the sums, for programs."""
    gateways = [each for each in all_now if isinstance(each, Gateway)]
    sums = (
        {
            "sessions_live": total(each.sessions_live for each in gateways),
            "sessions_limit": total(each.sessions_limit for each in gateways),
        }
        if gateways
        else {}
    )
    replicas = [{"url": url} | asdict(now) for url, now in zip(urls, all_now, strict=True)]
    ready = sum(bool(each.state.ready) for each in all_now)
    return {"ready": ready, **sums, "replicas": replicas}


def _figures(all_now: Sequence[Figures]) -> tuple[str, float | None]:
    gateways = [each for each in all_now if isinstance(each, Gateway)]
    if gateways:
        return _of_gateways(gateways)
    return _of_recognisers([each for each in all_now if isinstance(each, Recogniser)])


def _of_gateways(now: Sequence[Gateway]) -> tuple[str, float | None]:
    live = total(each.sessions_live for each in now)
    limit = total(each.sessions_limit for each in now)
    ended = _rate(each.sessions_per_second for each in now)
    refused = _rate(each.refusals_per_second for each in now)
    return f"{sessions(live, limit)} live, ended {ended}, refused {refused}", live


def _of_recognisers(now: Sequence[Recogniser]) -> tuple[str, float | None]:
    lag = total(each.consumer_lag_records for each in now)
    in_hand = total(each.utterances_in_hand for each in now)
    done = _rate(each.utterances_per_second for each in now)
    return f"{number(lag)} not read, {number(in_hand)} in hand, done {done}", lag


def _rate(each: Iterable[Mapping[str, float] | None]) -> str:
    known = total(None if rates is None else sum(rates.values()) for rates in each)
    return NOT_KNOWN if known is None else f"{number(known)}/s"
