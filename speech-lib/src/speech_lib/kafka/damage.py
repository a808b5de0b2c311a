"""Where a batch of records ends that cannot be read. Pure; for `consumer`.

A batch is compressed as a whole, so where it cannot be unpacked, or holds nonsense, none of its
records can be read, nor how many they are: the client library names the first one alone, and tells
the same again at each of the others.
"""

from collections.abc import Callable


def end_of(first: int, end: int, is_damaged: Callable[[int], bool]) -> int:
    """Return the first offset after a damaged batch, in some two logarithms of its length of looks.

    Args:
        first: Offset of the batch.
        end: Of the partition: of the record that comes next. Nothing beyond it is looked at.
        is_damaged: Looks at one offset, and tells whether it is in the batch.
    """
    bad, step = first, 1
    while bad + step < end and is_damaged(bad + step):
        bad, step = bad + step, step * 2
    good = max(min(bad + step, end), bad + 1)
    while good - bad > 1:
        middle = (bad + good) // 2
        bad, good = (middle, good) if is_damaged(middle) else (bad, middle)
    return good
