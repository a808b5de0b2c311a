"""What is searched for in logs and answers is found, whatever form it is in."""

import base64
import json
import secrets
from urllib.parse import quote

import pytest
from support.canaries import Heard, canary

FORMS = {
    "bytes": bytes,
    "repr": repr,
    "numbers": list,
    "hex": bytes.hex,
    "hex of a frame": lambda data: data.hex(" ").upper(),
    "json": lambda data: json.dumps([data.decode("latin-1")]),
    "percent": quote,
    "base64": lambda data: base64.b64encode(data + b"abc"),
    "base64, a byte later": lambda data: base64.b64encode(b"a" + data + b"b"),
    "base64 for URLs, two bytes later": lambda data: base64.urlsafe_b64encode(b"ab" + data),
}


@pytest.mark.parametrize(
    "secret", [canary("text").encode(), bytes(range(250, 256)) * 2], ids=["text", "bytes"]
)
@pytest.mark.parametrize("form", FORMS)
def test_a_canary_is_found_in_every_form(secret, form):
    """Else a test that finds none says nothing; what is not there is not found."""
    shown = FORMS[form](b"before" + secret + b"behind")
    heard = Heard()
    heard.add("log", shown if isinstance(shown, bytes) else str(shown).encode())
    assert heard.leaks([secret]) == [("log", secret)]
    assert heard.leaks([secret], but="log") == []
    assert heard.leaks([canary("other"), secrets.token_bytes(12)]) == []
