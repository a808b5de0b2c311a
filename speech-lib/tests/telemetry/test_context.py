"""The rules of W3C trace context, as its specification tells them."""

import pytest
from speech_lib.telemetry.context import TraceContext

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "context"),
    [
        (f"00-{TRACE}-{SPAN}-01", TraceContext(TRACE, SPAN, 1)),
        (f"00-{TRACE}-{SPAN}-00", TraceContext(TRACE, SPAN, 0)),
        (f"00-{TRACE}-{SPAN}-03", TraceContext(TRACE, SPAN, 3)),
        (f"00-{TRACE}-{SPAN}-ff", TraceContext(TRACE, SPAN, 3)),
        (f"cc-{TRACE}-{SPAN}-01", TraceContext(TRACE, SPAN, 1)),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", TraceContext(TRACE, SPAN, 1)),
    ],
)
def test_a_valid_header_is_read(header, context):
    """Unknown flags are dropped, and later versions are read as far as version 00 goes."""
    assert TraceContext.parse(header) == context


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01.more",
    ],
)
def test_anything_else_is_ignored(header):
    """A header that is absent or not valid names no span, and a new trace begins."""
    assert TraceContext.parse(header) is None


def test_a_header_survives_the_round_trip():
    """What is written is read as the same span."""
    context = TraceContext.begin()
    assert TraceContext.parse(context.header()) == context


def test_each_trace_and_each_span_is_new():
    """A child has the trace and the flags of its parent and a span of its own."""
    first, second = TraceContext.begin(), TraceContext.begin()
    child = first.child()
    assert first.trace_id != second.trace_id
    assert child == TraceContext(first.trace_id, child.span_id, first.flags)
    assert child.span_id != first.span_id
