"""The list of checks, and how they say what they expect. For the modules that hold checks."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from speech_tools.conformance.exchange import Ended, Gateway, NotTestable, Violation

Run = Callable[[Gateway], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the document says.

    Attributes:
        name: An anchor of docs/protocol.md, and the row or the words in that section.
        says: What is expected, for a person.
        run: Raises `Violation` or `NotTestable`.
        slow: Whether it waits for a clock of the gateway.
    """

    name: str
    says: str
    run: Run
    slow: bool = False


CHECKS: dict[str, Check] = {}
"""All checks by name, in the order of their modules."""


def check(name: str, *, slow: bool = False) -> Callable[[Run], Run]:
    """Make a check of a coroutine function, whose docstring says what is expected."""

    def add(run: Run) -> Run:
        says = (run.__doc__ or "").strip()
        CHECKS[name] = Check(name, says, run, slow)
        return run

    return add


def not_testable(name: str, says: str, why: str) -> None:
    """Name what the document says and nobody can see from outside, with the reason."""

    async def run(_gateway: Gateway) -> None:
        raise NotTestable(why)

    CHECKS[name] = Check(name, says, run)


def expect(kept: object, otherwise: str) -> None:
    """Raise `Violation` with a sentence unless something holds."""
    if not kept:
        raise Violation(otherwise)


def expect_close(ended: Ended, code: int, reason: str) -> None:
    """Hold a close to its row of the table."""
    expect(
        (ended.code, ended.reason) == (code, reason),
        f"expected the close {code} {reason}, got {ended.code} {ended.reason}",
    )


def expect_only(ended: Ended, *statuses: str) -> None:
    """Expect these messages and no other."""
    expect(
        ended.statuses == list(statuses),
        f"expected {', '.join(statuses) or 'no message'}, got {ended.statuses}",
    )
