"""The client's module: its types, its size, its arithmetic, and a sentence for every code."""

import gzip
import re
import subprocess

import pytest
from speech_tools import page
from support.checkout import ROOT
from support.described import document
from support.web_page import CLIENT

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(120)]

SHIPPED = ("speech-client.js", "microphone-worklet.js")
MOST_BYTES = 8 * 1024


def done(packages, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own commands
        command, cwd=packages, capture_output=True, text=True, timeout=100, check=False
    )


def test_types_hold(packages):
    """JSDoc says the types, and tsc holds the code to them."""
    said = done(packages, "node", "node_modules/typescript/bin/tsc", "--project", ".")
    assert (said.returncode, said.stdout) == (0, "")


def test_arithmetic_holds(packages):
    """Tones, counts of samples, pieces: the tests of the client itself."""
    said = done(packages, "node", "--test", "test/")
    assert said.returncode == 0, said.stdout[-3000:]
    assert re.search(r"^# pass [1-9]", said.stdout, re.MULTILINE)


def test_it_is_small():
    """Module and worklet together, gzipped, as every bundler ships them: without comments."""
    code = "".join((CLIENT / name).read_text() for name in SHIPPED)
    code = re.sub(r"/\*\*.*?\*/", "", code, flags=re.DOTALL)
    code = re.sub(r"(^|\s)//( .*)?$", "", code, flags=re.MULTILINE)
    assert len(gzip.compress(code.encode())) <= MOST_BYTES


def sentences() -> set[str]:
    table = (CLIENT / "speech-client.js").read_text().partition("export const SENTENCES = {")[2]
    return set(re.findall(r"^  (\w+):", table.partition("\n};")[0], re.MULTILINE))


def test_every_code_has_a_sentence():
    """Those of the protocol that a client can see, and those of the client itself."""
    messages = document()["components"]["messages"]
    protocol = {
        *messages["error"]["payload"]["properties"]["code"]["enum"],
        *messages["accepted"]["payload"]["properties"]["ended_by"]["enum"],
    } - {"done", "disconnect"}
    code = (CLIENT / "speech-client.js").read_text().partition("\n};")[2]
    own = set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', code)) - {"give_up"}
    not_codes = {"client_ref", "on_disconnect"}
    assert protocol | (own - not_codes) <= sentences()


def test_it_loads_nothing_from_elsewhere():
    """No blob:, no eval, no CDN: it works under default-src 'self'."""
    text = "".join(path.read_text() for path in CLIENT.glob("*.[hj]*") if path.suffix != ".json")
    assert re.findall(r"\beval\(|new Function|blob:|data:|https?://(?!localhost)", text) == [
        "blob:",
        "data:",
    ]  # both in the comment that says why not


def test_caddy_serves_what_the_demo_serves():
    """The same files, under the same headers, though each has its own list."""
    told = (ROOT / "services/gateway/edge/page.caddy").read_text()
    (paths,) = re.findall(r"^\t\tpath / (.*)$", told, re.MULTILINE)
    assert paths.split() == [f"/{name}" for name in page.FILES]
    headers = re.findall(r'^\t\t\t([A-Z][\w-]+) "?(.+?)"?$', told, re.MULTILINE)
    assert dict(headers) == page.HEADERS
