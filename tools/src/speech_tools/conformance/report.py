"""What people and programs read of the results: lines, JSON, and JUnit's XML. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from speech_tools.conformance.run import Result, Verdict
from speech_tools.protocol.messages import SUBPROTOCOL
from speech_tools.terminal import printable

_SIGNS = {Verdict.PASSED: "✓", Verdict.FAILED: "✗", Verdict.NOT_TESTABLE: "?"}
_MOST_FRAMES = 40


def line(result: Result) -> str:
    """Return one line about a result."""
    note = " (expected)" if result.expected and not result.stale else ""
    note = " (expected to fail: take it off the list)" if result.stale else note
    why = f": {result.why}" if result.why else ""
    return printable(f"{_SIGNS[result.verdict]} {result.check.name}{note}{why}")


def details(result: Result) -> Iterator[str]:
    """Yield what helps to mend a failure: what was expected, and what passed."""
    yield line(result)
    yield f"    {result.check.says}"
    yield f"    docs/protocol.md#{result.check.name.partition('/')[0]}"
    frames = result.frames
    for frame in frames[:_MOST_FRAMES]:
        yield printable(f"    {frame}")
    if len(frames) > _MOST_FRAMES:
        yield f"    … and {len(frames) - _MOST_FRAMES} more"


def summary(results: Sequence[Result]) -> str:
    """Return how many of each there are."""
    counts = Counter(each.verdict for each in results)
    told = [f"{counts[verdict]} {verdict.value}" for verdict in Verdict]
    if known := sum(each.expected and each.verdict is Verdict.FAILED for each in results):
        told.append(f"{known} of the failures expected")
    if stale := sum(each.stale for each in results):
        told.append(f"{stale} expected to fail and passed")
    return ", ".join(told)


def as_json(url: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return everything for a program."""
    return {
        "url": url,
        "protocol": SUBPROTOCOL,
        "checks": [
            {
                "name": each.check.name,
                "says": each.check.says,
                "verdict": each.verdict.value,
                "expected_to_fail": each.expected,
                "why": each.why,
                "seconds": round(each.seconds, 3),
                "frames": list(each.frames) if each.verdict is Verdict.FAILED else [],
            }
            for each in results
        ],
    }


def junit(results: Sequence[Result]) -> str:
    """Return JUnit's XML: a case for each check; what cannot be tested is skipped, with why."""
    suite = ET.Element(
        "testsuite",
        name=SUBPROTOCOL,
        tests=str(len(results)),
        failures=str(sum(each.bad for each in results)),
        skipped=str(sum(_is_skipped(each) for each in results)),
    )
    for each in results:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=SUBPROTOCOL,
            name=each.check.name,
            time=f"{each.seconds:.3f}",
        )
        if each.bad:
            failure = ET.SubElement(case, "failure", message=line(each))
            failure.text = "\n".join(details(each))
        elif _is_skipped(each):
            ET.SubElement(case, "skipped", message=line(each))
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _is_skipped(result: Result) -> bool:
    return not result.bad and result.verdict is not Verdict.PASSED
