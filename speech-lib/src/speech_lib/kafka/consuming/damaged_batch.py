"""Find the end of a batch of records that cannot be read: for `consumer`. Pure.

A batch is compressed as a whole. Where it cannot be unpacked, nobody can tell how many records it
holds. The client library reports its first offset, also for a read at any later offset in it.
"""

from collections.abc import Callable


def find_end(first: int, end: int, is_in_batch: Callable[[int], bool]) -> int:
    """Return the first offset after a batch, with some two logarithms of its length of look-ups.

    Args:
        first: The offset of the batch.
        end: The offset at which the partition ends. Nothing from there on is looked up.
        is_in_batch: Looks one offset up, and returns whether it lies in the batch.
    """
    bad, step = first, 1
    while bad + step < end and is_in_batch(bad + step):
        bad, step = bad + step, step * 2
    good = max(min(bad + step, end), bad + 1)
    while good - bad > 1:
        middle = (bad + good) // 2
        bad, good = (middle, good) if is_in_batch(middle) else (bad, middle)
    return good
