"""What a measurement ran on, as far as it explains figures. Nothing here names the machine.

The reports of `speech latency` and `speech bench` hold it.
"""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_MODEL_KEYS = ("model name", "Model", "Hardware")


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine.

    Attributes:
        processor: Its model.
        cores: How many this process may use.
        memory_bytes: Of the whole machine.
        python: Version of the interpreter that measured.
        kernel: Name and release of the operating system's kernel.
        load_average: Of the minute before: what else was going on.
    """

    processor: str
    cores: int
    memory_bytes: int
    python: str
    kernel: str
    load_average: float

    def line(self) -> str:
        """Return it for people."""
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_bytes / 2**30:.1f} GiB, "
            f"{self.kernel}, Python {self.python}, load average before {self.load_average:.2f}"
        )


def this_machine() -> Machine:
    """Return the machine that this runs on."""
    return Machine(
        processor=_processor(),
        cores=_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        python=platform.python_version(),
        kernel=f"{platform.system()} {platform.release()}",
        load_average=load_average(),
    )


def load_average() -> float:
    """Return how many processes wanted a core in the last minute."""
    return round(os.getloadavg()[0], 2)


def _cores() -> int:
    """Return the cores of this process, which may be fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    """Return the model. On Linux the standard library knows the architecture alone."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    told = {
        name.strip(): value.strip() for name, _, value in (each.partition(":") for each in lines)
    }
    models = (told[key] for key in _MODEL_KEYS if told.get(key))
    return next(models, platform.processor() or platform.machine())
