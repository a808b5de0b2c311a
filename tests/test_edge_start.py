"""The edge's entry point, run by this machine's shell: what it refuses before Caddy is started."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from speech_gateway.settings import GatewaySettings
from support.checkout import ROOT

START = ROOT / "services/gateway/edge/start"
KEY = "k" * 32
NO_PROXY = (
    "TRUSTED_PROXIES: expected the edge's address on the network ingress, 172.16.87.2 by default;"
    " it is empty"
)
NO_KEYS = (
    "EDGE_API_KEY: expected a key, or several separated by commas, each of 32 to 128 letters,"
    " digits, '-' or '_'"
)
GOOD = {
    "EDGE_API_KEY": KEY,
    "ORIGIN_ALLOWLIST": "https://app.example",
    "TRUSTED_PROXIES": "172.16.87.2",
    "PATH": "/usr/bin:/bin",
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"EDGE_API_KEY": ""}, NO_KEYS),
        ({"EDGE_API_KEY": f"{KEY},too-short"}, NO_KEYS),
        ({"EDGE_API_KEY": f"{KEY},"}, NO_KEYS),
        ({"EDGE_API_KEY": f"{KEY}|.*"}, NO_KEYS),
        (
            {"ORIGIN_ALLOWLIST": ""},
            "ORIGIN_ALLOWLIST: expected the origins whose pages may connect; it is empty",
        ),
        ({"TRUSTED_PROXIES": ""}, NO_PROXY),
        ({"EDGE_HOST": "a.example }"}, "EDGE_HOST: expected one host name in lower case"),
        ({"EDGE_PAGE": "yes"}, "EDGE_PAGE: expected on or off"),
        ({"EDGE_PAGE": "on"}, "EDGE_PAGE: on needs RESULTS=on, for its texts"),
    ],
)
def test_a_wrong_variable_is_refused(wrong: dict[str, str], said: str):
    """One line says what is expected, without what was given; the exit code is 2."""
    done = subprocess.run(  # noqa: S603 - our own script
        ["/bin/sh", START], check=False, capture_output=True, text=True, env=GOOD | wrong
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"edge: {said}\n")


CADDY = r"""#!/bin/sh
echo "$1 $EDGE_HOST $EDGE_TLS $EDGE_DRAIN_SECONDS $EDGE_STREAM_SECONDS;" \
  "among variables: $(env | grep -c "$KEY"); $6: $(cat "$7")"
"""


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., str]:
    """Return `started(**more)`, which tells what Caddy would have been started with."""

    def start(**more: str) -> str:
        caddy = tmp_path / "caddy"
        caddy.write_text(CADDY.replace("$KEY", KEY))
        caddy.chmod(0o755)
        given = GOOD | {"PATH": f"{tmp_path}:{GOOD['PATH']}"} | more
        done = subprocess.run(  # noqa: S603 - our own script
            ["/bin/sh", START], check=False, capture_output=True, text=True, env=given
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return start


def test_with_all_that_it_needs_it_becomes_caddy(started: Callable[..., str]):
    """The keys come as alternatives of a regular expression, by a pipe; no variable has them."""
    assert started(EDGE_API_KEY=f"{KEY},{KEY}2") == (
        f"run localhost internal 75 100; among variables: 0; --envfile: EDGE_KEYS={KEY}|{KEY}2\n"
    )


def test_its_clock_is_later_than_the_gateways(started: Callable[..., str]):
    """After the longest session, the waits for the broker and, where there are texts, for one.

    A client who is connected when the edge is stopped has 5 s more than that, and who reads nothing
    is let go after 30 s more.
    """
    own = {name: field.default for name, field in GatewaySettings.model_fields.items()}
    usual = own["max_session_seconds"] + own["delivery_timeout_seconds"]
    assert started().startswith(f"run localhost internal {usual + 5:g} {usual + 30:g};")
    usual += own["result_timeout_seconds"]
    told = f"run localhost internal {usual + 5:g} {usual + 30:g};"
    assert started(RESULTS="on").startswith(told)
    given = {"MAX_SESSION_SECONDS": "6e2", "DELIVERY_TIMEOUT_SECONDS": "0.5"}
    assert started(**given).startswith("run localhost internal 605.5 630.5;")
    given |= {"RESULTS": "on", "RESULT_TIMEOUT_SECONDS": "0.25"}
    assert started(**given).startswith("run localhost internal 605.75 630.75;")


def test_the_documented_commands_leave_the_key_to_its_owner(tmp_path):
    """Also where `.env` was there already, and everybody could read it."""
    text = (ROOT / "docs/security.md").read_text()
    (block,) = re.findall(
        r"^```sh\n([^`]*EDGE_API_KEY=.*?)^docker ", text, re.MULTILINE | re.DOTALL
    )
    env = tmp_path / ".env"
    env.write_text("LOG_LEVEL=INFO\n")
    env.chmod(0o644)
    subprocess.run(["/bin/sh", "-euc", block], check=True, cwd=tmp_path)  # noqa: S603
    assert env.stat().st_mode & 0o777 == 0o600
    lines = env.read_text().splitlines()
    assert lines[0] == "LOG_LEVEL=INFO"
    assert sum(bool(re.fullmatch("EDGE_API_KEY=[0-9a-f]{64}", line)) for line in lines) == 1
