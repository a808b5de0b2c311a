"""How many cores this process may use: the default of `ASR_WORKERS`. Used by `settings`."""

import math
import os
from pathlib import Path

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Return the cores of this process, within what its container is limited to."""
    try:
        limit = _CPU_MAX.read_text()
    except OSError:
        limit = ""
    return within_limit(_schedulable(), limit)


def _schedulable() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        return os.cpu_count() or 1


def within_limit(cores: int, cpu_max: str) -> int:
    """Return `cores`, or fewer where a control group allows less.

    Args:
        cores: What the machine offers.
        cpu_max: Content of `cpu.max` (Linux, Control Group v2, "CPU Interface Files"): microseconds
            of processor time, or `max`, in each period of microseconds.
    """
    match cpu_max.split():
        case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period):
            return max(1, min(cores, math.ceil(int(quota) / int(period))))
        case _:
            return cores
