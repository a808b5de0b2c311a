"""How many workers there are unless somebody says so."""

import pytest
from speech_asr.cores import usable_cores, within_limit


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("3200000 100000", 8),
        ("", 8),
        ("nonsense", 8),
        ("1 0", 8),
    ],
)
def test_a_container_counts_what_it_may_use(cpu_max, expected):
    """A limit below one core still gives a worker; no limit gives the machine."""
    assert within_limit(8, cpu_max) == expected


def test_this_process_has_at_least_one_core():
    """Whatever the machine, the default is a number of workers."""
    assert usable_cores() >= 1
