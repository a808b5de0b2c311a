"""A sink that keeps its spans, for tests of the code that describes them."""

from speech_lib.telemetry.context import TraceContext
from speech_lib.telemetry.spans import NoSpans, Span


class KeptSpans(NoSpans):
    """Wants every span and keeps it, in the order in which they end."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def wants(self, context: TraceContext) -> bool:  # noqa: ARG002 - as every sink
        """Return True."""
        return True

    def record(self, span: Span) -> None:
        """Keep a span."""
        self.spans.append(span)
