"""`scripts/transports.py`: every transport brings the whole utterance, and has its figures."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline_tools.transports import NEEDS, TRANSPORTS

SCRIPT = Path(__file__).parent.parent / "scripts" / "transports.py"
CHUNKS = [640, 3200, 65_536]
THERE = [
    name
    for name in TRANSPORTS
    if name not in NEEDS or importlib.util.find_spec(NEEDS[name]) is not None
]


@pytest.mark.pipeline
def test_each_transport_has_figures_for_each_size_of_chunk(tmp_path: Path):
    """The script fails if a server counts other bytes than were sent."""
    file = tmp_path / "costs.json"
    command = [sys.executable, SCRIPT, "--rounds", "1", "--utterances", "1", "--json", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    costs = json.loads(file.read_text())
    assert [(each["transport"], each["chunk_bytes"]) for each in costs] == [
        (name, size) for size in CHUNKS for name in THERE
    ]
    assert all(each["server_ms"] > 0 and each["utterance_ms"] > 0 for each in costs)
    assert {each["first"] for each in costs if each["transport"] == "WebSocket"} == {1.0}
    for name in set(TRANSPORTS) - set(THERE):
        assert f"{name} is left out, it needs {NEEDS[name]}" in done.stderr
