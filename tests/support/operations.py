"""Ask a service's operations port, as whoever runs it does."""

import json
from http.client import HTTPConnection
from typing import Any

_SECONDS = 5


def page(port: int, path: str) -> tuple[int, str]:
    """Return the status and the text of a page."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def readiness(port: int) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of `/readyz`."""
    status, text = page(port, "/readyz")
    return status, json.loads(text)
