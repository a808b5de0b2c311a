"""How the pictures of `speech latency` and `speech bench` look.

Imported only where a picture is wanted: matplotlib is an extra, and takes its time to load.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Okabe and Ito's palette, told apart by people with any kind of colour vision.
BLUE, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
BLACK, GREY, WHITE = "#000000", "#555555", "#ffffff"
_INCHES = (10.5, 7.8)
_DOTS_PER_INCH = 120
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}


@contextmanager
def picture(file: Path, title: str) -> Iterator[Figure]:
    """Yield an empty figure, which becomes a PNG at the end of the block."""
    with mpl.rc_context():
        mpl.rcParams.update(_STYLE)
        # Built without pyplot: no window system is looked for, and nothing stays behind.
        layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.1)
        figure = Figure(figsize=_INCHES, layout=layout)
        figure.suptitle(title, x=0.012, ha="left", fontsize=12, linespacing=1.5)
        yield figure
        figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)
