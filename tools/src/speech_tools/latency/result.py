"""What became of the utterances of `speech latency`: their waits, or where they were lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from speech_lib.errors import EventError

from speech_tools.latency.hops import ACCEPTED, CONNECTED, traced, unknown, waits
from speech_tools.latency.report import Lost
from speech_tools.latency.run import Utterance
from speech_tools.topics import Topics
from speech_tools.trace import tracing


@dataclass(frozen=True, slots=True)
class Result:
    """What a run gave.

    Attributes:
        waits: How many milliseconds each hop took, by its name, for each utterance by its id.
        lost: The utterances without.
    """

    waits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    lost: tuple[Lost, ...] = ()


def result(
    utterances: Sequence[Utterance], warm_up: int, topics: Topics, decode: tracing.Decode
) -> Result:
    """Judge utterances. The first `warm_up` of them count only where they were lost."""
    measured: dict[str, Mapping[str, int]] = {}
    lost: list[Lost] = []
    for utterance in utterances:
        match _judged(utterance, topics, decode):
            case Lost() as loss:
                lost.append(loss)
            case found if utterance.number >= warm_up and utterance.correlation_id:
                measured[utterance.correlation_id] = found
    return Result(measured, tuple(lost))


def _judged(
    utterance: Utterance, topics: Topics, decode: tracing.Decode
) -> Mapping[str, int] | Lost:
    name = utterance.correlation_id
    if name is None:
        return Lost(None, CONNECTED, utterance.problem)
    try:
        trace = tracing.trace(name, utterance.records, topics, decode)
    except EventError as error:
        return Lost(name, tracing.TEXT_STORED, f"the record of the text cannot be read: {error}")
    if trace.missing:
        return Lost(name, trace.missing.hop, utterance.problem or trace.missing.line)
    if utterance.problem:
        return Lost(name, ACCEPTED, utterance.problem)
    times = utterance.times | traced(trace)
    if (point := unknown(times)) is not None:
        return Lost(name, point, "its record does not tell the time")
    return waits(times)
