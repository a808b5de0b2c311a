"""`speech latency` against the stack as a developer runs it."""

import json
import subprocess
import sys
from pathlib import Path

from speech_tools.latency.hops import HOPS

ROOT = Path(__file__).parents[2]
SCRIPT_SECONDS = 150
COUNT = 5
ROUNDING_MS = 2
"""Times are whole milliseconds, each rounded on its own."""


def test_the_hops_of_the_stack_are_measured(stack, tmp_path):
    """Every utterance comes out as text; all clocks are one, so each hop takes its time forward."""
    done = subprocess.run(  # noqa: S603 - our own script
        [
            *(sys.executable, "-m", "speech_tools", "latency"),
            *("--url", f"ws://localhost:{stack.ports['GATEWAY_HOST_PORT']}/ws/audio"),
            *("--bootstrap-servers", f"localhost:{stack.ports['KAFKA_HOST_PORT']}"),
            *("--registry", f"http://localhost:{stack.ports['SCHEMA_REGISTRY_HOST_PORT']}"),
            *("--count", str(COUNT), "--seconds", "1", "--warm-up", "2", "--out", str(tmp_path)),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=SCRIPT_SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads((tmp_path / "latency.json").read_text(encoding="utf-8"))
    assert (told["measured"], told["lost"], list(told["hops"])) == (
        COUNT,
        [],
        [hop.name for hop in HOPS],
    )
    assert {name: hop for name, hop in told["hops"].items() if hop["min"] < -ROUNDING_MS} == {}
    assert (tmp_path / "latency.png").stat().st_size > 0
