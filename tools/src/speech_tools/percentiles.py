"""Percentiles: one rule for all reports.

Used by `speech load`, by `speech latency` and by tests.
"""

from collections.abc import Sequence

import numpy as np


def percentiles(values: Sequence[float], parts: Sequence[float]) -> list[float]:
    """Return for each part (0 to 1) the smallest value that so many of the values do not exceed.

    Each answer is one of the values, never something between two of them (the nearest rank), so
    that there is an utterance behind every figure. There has to be a value.
    """
    return [float(value) for value in np.quantile(values, parts, method="inverted_cdf")]
