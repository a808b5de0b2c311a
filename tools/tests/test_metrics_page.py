"""What lies between two looks at a page of metrics: histograms and their quantiles."""

import math

import pytest
from speech_tools.operations.metrics_page import Histogram, read

INF = math.inf
EARLIER = Histogram((0.001, 0.01, 0.1, INF), (5, 5, 5, 5))
LATER = Histogram((0.001, 0.01, 0.1, INF), (5, 95, 104, 105))


def test_a_run_is_the_difference_of_two_looks():
    """What was observed before the run does not count."""
    assert LATER.since(EARLIER) == Histogram((0.001, 0.01, 0.1, INF), (0, 90, 99, 100))


@pytest.mark.parametrize(
    "other", [Histogram((0.001, INF), (5, 5)), Histogram(LATER.bounds, (6, 95, 104, 105))]
)
def test_a_gateway_that_was_replaced_meanwhile_has_no_difference(other):
    """Other buckets, or counts that went down, are another process."""
    assert LATER.since(other) is None


@pytest.mark.parametrize(
    ("part", "seconds"),
    [(0.5, 0.001 + 0.009 * 50 / 90), (0.9, 0.01), (0.95, 0.01 + 0.09 * 5 / 9), (0.99, 0.1)],
)
def test_a_quantile_is_interpolated_within_its_bucket(part, seconds):
    """As Prometheus does, from the lower bound of the bucket that holds it."""
    assert Histogram((0.001, 0.01, 0.1, INF), (0, 90, 99, 100)).quantile(part) == pytest.approx(
        seconds, rel=1e-12
    )


@pytest.mark.parametrize(
    ("counts", "seconds"), [((0, 0, 0, 0), None), ((0, 0, 0, 3), 0.1), ((4, 4, 4, 4), 0.00099)]
)
def test_a_quantile_at_the_ends(counts, seconds):
    """Nothing of nothing; the largest bound for what is above it; from zero in the lowest."""
    found = Histogram((0.001, 0.01, 0.1, INF), counts).quantile(0.99)
    assert found == (seconds if seconds is None else pytest.approx(seconds, rel=1e-12))


LABELS = ",".join(f'l{number}=""' for number in range(20_000))
HOSTILE_PAGES = {
    "a line of labels": f"m{{{LABELS}}} 1\n",
    "a value of escapes": 'm{a="' + '\\"' * 100_000 + '"} 1\n',
    "a line behind other ends of lines": f"a 1\u2028\x0b\x85m{{{LABELS}}} 1\n",
    "a help of 200 kB": "# HELP m " + "h" * 200_000 + "\nm 1\n",
}


@pytest.mark.parametrize("page", HOSTILE_PAGES.values(), ids=HOSTILE_PAGES)
def test_a_page_that_would_take_long_to_read_is_not_read(page: str):
    """The parser's time grows with the square of a line: it held the screen for seconds."""
    with pytest.raises(ValueError, match="a line of more than 1000 characters"):
        read(page)
