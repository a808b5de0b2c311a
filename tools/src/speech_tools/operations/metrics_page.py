"""What a page in Prometheus' text format says, and what happened between two looks at it.

Pure. Used by `load.metrics`, by `top.figures` and by tests.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many observations were at most as large as each bound.

    Attributes:
        bounds: ascending; the last one is infinite.
        counts: cumulative, one for each bound.
    """

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    def since(self, earlier: "Histogram") -> "Histogram | None":
        """Return what was observed after `earlier`, or nothing if the process is another one."""
        if self.bounds != earlier.bounds:
            return None
        counts = tuple(now - was for now, was in zip(self.counts, earlier.counts, strict=True))
        grows = all(below <= count for below, count in pairwise((0.0, *counts)))
        return Histogram(self.bounds, counts) if grows else None

    def quantile(self, part: float) -> float | None:
        """Return the value that this part (0 to 1) of the observations does not exceed.

        It is interpolated within its bucket, as Prometheus' `histogram_quantile` does. Above the
        largest bound it is that bound. Nothing if nothing was observed.
        """
        total = self.counts[-1]
        if not total:
            return None
        index = next(at for at, count in enumerate(self.counts) if count and count >= part * total)
        low, high = (0.0, *self.bounds)[index : index + 2]
        if math.isinf(high):
            return low
        below, up_to = (0.0, *self.counts)[index : index + 2]
        return low + (high - low) * (part * total - below) / (up_to - below)


Labels = Mapping[str, str]

_LARGEST = 1e18
"""Our services count nothing beyond it: such a value, or NaN, is left out."""

_LONGEST_LINE = 1_000
"""Characters; ours have some 120. The parser's time grows with the square of a line's labels."""


@dataclass(frozen=True, slots=True)
class Page:
    """The samples of one look, by name. What is not on the page is `None` or empty."""

    samples: Mapping[str, tuple[tuple[Labels, float], ...]]

    def value(self, name: str) -> float | None:
        """Return the sum of all samples of that name."""
        found = self.samples.get(name)
        return None if found is None else math.fsum(value for _, value in found)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the samples of that name by the value of a label, summed over the others."""
        sums: dict[str, float] = defaultdict(float)
        for labels, value in self.samples.get(name, ()):
            sums[labels.get(label, "")] += value
        return dict(sums)

    def label(self, name: str, label: str) -> str | None:
        """Return a label of the first sample of that name."""
        return next((labels.get(label) for labels, _ in self.samples.get(name, ())), None)

    def histogram(self, name: str) -> Histogram | None:
        """Return a histogram that has no labels of its own, or nothing if it cannot be one."""
        buckets = self.by(f"{name}_bucket", "le")
        if not buckets:
            return None
        try:
            bounds, counts = zip(*sorted((float(le), n) for le, n in buckets.items()), strict=True)
        except ValueError:  # a bound that is no number
            return None
        grows = all(below <= count for below, count in pairwise((0.0, *counts)))
        return Histogram(bounds, counts) if grows and bounds[-1] == math.inf else None


def read(page: str) -> Page:
    """Return what a page in Prometheus' text format says.

    Raises:
        ValueError: It is not such a page.
    """
    if any(len(line) > _LONGEST_LINE for line in page.split("\n")):
        raise ValueError(f"a line of more than {_LONGEST_LINE} characters")
    samples: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
    for sample in _samples(page):
        if abs(sample.value) <= _LARGEST:
            samples[sample.name].append((sample.labels, sample.value))
    return Page({name: tuple(found) for name, found in samples.items()})


def _samples(page: str) -> Iterator[Sample]:
    try:
        for family in text_string_to_metric_families(page):
            yield from family.samples
    except (AttributeError, LookupError, TypeError) as error:  # the parser trusts what it reads
        raise ValueError from error
