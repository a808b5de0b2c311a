"""Judge a request before the upgrade: the refusals of `speech-ingress.v1`, in their order.

Pure. The server passes the parts of a request to `judge`, which returns what the client asks for
or a `Refusal`. `admission.py` decides on refusals that depend on the gateway's state (draining,
readiness, capacity). What the library refuses by itself (a bad key, HTTP/1.0) never comes here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs

import langcodes.tag_parser
from speech_lib.kafka.headers import is_client_ref

from speech_gateway.utterance import Wanted

PATH = "/ws/audio"
NO_ORIGIN = "none"
"""In the allowlist: requests without an Origin header may connect too."""

MAX_LIST_BYTES = 512
"""Of each header that is split at its commas, in all: some ten times what clients send."""
_LISTS = ("Connection", "Upgrade", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions")

_MAX_LANGUAGE_CHARACTERS = 35  # RFC 5646 section 4.4.1
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Answer:
    """The HTTP answer of a refusal.

    Attributes:
        status: The status; the phrase is the standard one.
        code: The machine's name of the refusal, also a metric label.
        message: One sentence for a person.
        headers: Headers of this answer alone.
    """

    status: HTTPStatus
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()

    def body(self) -> bytes:
        """Return the JSON body."""
        return json.dumps({"code": self.code, "message": self.message}).encode()


_RETRY_AFTER = (("Retry-After", "1"),)


class Refusal(Enum):
    """Every refusal before the upgrade, in the order in which they are decided."""

    NOT_FOUND = Answer(HTTPStatus.NOT_FOUND, "not_found", f"the only path is {PATH}")
    METHOD_NOT_ALLOWED = Answer(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "the only method is GET",
        (("Allow", "GET"),),
    )
    UPGRADE_REQUIRED = Answer(
        HTTPStatus.UPGRADE_REQUIRED,
        "upgrade_required",
        "this is a WebSocket: connect with a WebSocket client",
        (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),
    )
    INVALID_LANGUAGE = Answer(
        HTTPStatus.BAD_REQUEST,
        "invalid_language",
        "language must be given at most once, as a BCP 47 tag such as en-US",
    )
    INVALID_RESULTS = Answer(
        HTTPStatus.BAD_REQUEST,
        "invalid_results",
        "results must be given at most once, as text",
    )
    RESULTS_NOT_OFFERED = Answer(
        HTTPStatus.BAD_REQUEST,
        "results_not_offered",
        "this gateway sends no results: connect without the parameter results",
    )
    INVALID_CLIENT_REF = Answer(
        HTTPStatus.BAD_REQUEST,
        "invalid_client_ref",
        "client_ref must be given at most once, as 1 to 64 of A-Z a-z 0-9 . _ ~ -",
    )
    INVALID_ON_DISCONNECT = Answer(
        HTTPStatus.BAD_REQUEST,
        "invalid_on_disconnect",
        "on_disconnect must be given at most once, as store or discard",
    )
    ORIGIN_NOT_ALLOWED = Answer(
        HTTPStatus.FORBIDDEN, "origin_not_allowed", "pages of this origin may not connect"
    )
    DRAINING = Answer(
        HTTPStatus.SERVICE_UNAVAILABLE, "draining", "the gateway is stopping", _RETRY_AFTER
    )
    NOT_READY = Answer(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "not_ready",
        "the gateway cannot store audio at the moment",
        _RETRY_AFTER,
    )
    AT_CAPACITY = Answer(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "at_capacity",
        "the gateway serves as many clients as it can",
        _RETRY_AFTER,
    )
    TOO_MANY_FROM_ADDRESS = Answer(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too_many_connections_from_address",
        "this address has, or opens, as many connections as it may",
        _RETRY_AFTER,
    )


class HeaderFields(Protocol):
    """The headers of a request; a doubled header has several values."""

    def get_all(self, key: str, /) -> Sequence[str]:
        """Return all values of the header `key`, in order; none if it is missing."""


@dataclass(frozen=True, slots=True)
class Request:
    """What `judge` reads of a handshake. `target` is the request target, query included."""

    method: str
    target: str
    headers: HeaderFields


def judge(
    request: Request, origin_allowlist: frozenset[str], *, offers_results: bool = False
) -> Wanted | Refusal:
    """Return what the client wants, or the first reason to refuse it.

    Args:
        request: The parts of the request.
        origin_allowlist: Exact origins; empty admits every one.
        offers_results: Whether this gateway can send the text on the same connection.
    """
    path, _, query = request.target.partition("?")
    if path != PATH:
        return Refusal.NOT_FOUND
    if request.method != "GET":
        return Refusal.METHOD_NOT_ALLOWED
    if not _asks_for_upgrade(request.headers):
        return Refusal.UPGRADE_REQUIRED
    wanted = _read_query(query, offers_results=offers_results)
    if isinstance(wanted, Wanted) and not allows_origin(
        request.headers.get_all("Origin"), origin_allowlist
    ):
        return Refusal.ORIGIN_NOT_ALLOWED
    return wanted


def _read_query(query: str, *, offers_results: bool) -> Wanted | Refusal:
    """Return what the query asks for; it may name each of our parameters once."""
    given = parse_qs(query, keep_blank_values=True)
    for name, is_valid, refusal in _PARAMETERS:
        values = given.get(name, [])
        if len(values) > 1 or not all(map(is_valid, values)):
            return refusal
        if name == "results" and values and not offers_results:
            return Refusal.RESULTS_NOT_OFFERED
    one = {name: values[0] for name, values in given.items()}
    return Wanted(
        language_hint=one.get("language"),
        results="results" in one,
        client_ref=one.get("client_ref"),
        discards=one.get("on_disconnect") == "discard",
    )


def has_too_long_list(headers: HeaderFields) -> bool:
    """Tell whether a header that is a list is too long to split, for the library or for us.

    Splitting 16 KiB of `a,a,a,…` takes milliseconds, and all other clients wait meanwhile.
    """
    return any(sum(map(len, headers.get_all(name))) > MAX_LIST_BYTES for name in _LISTS)


def is_language_tag(text: str) -> bool:
    """Tell whether `text` is a well-formed BCP 47 tag (RFC 5646 section 2.1)."""
    if len(text) > _MAX_LANGUAGE_CHARACTERS or not _LANGUAGE.fullmatch(text):
        return False
    try:
        langcodes.tag_parser.parse_tag(text)  # type: ignore[no-untyped-call]
    except langcodes.tag_parser.LanguageTagError:
        return False
    return True


_PARAMETERS: tuple[tuple[str, Callable[[str], bool], Refusal], ...] = (
    ("language", is_language_tag, Refusal.INVALID_LANGUAGE),
    ("results", {"text"}.__contains__, Refusal.INVALID_RESULTS),
    ("client_ref", is_client_ref, Refusal.INVALID_CLIENT_REF),
    ("on_disconnect", {"store", "discard"}.__contains__, Refusal.INVALID_ON_DISCONNECT),
)
"""Each parameter, which values it takes, and the refusal of any other, in the protocol's order."""


def allows_origin(origins: Sequence[str], allowlist: frozenset[str]) -> bool:
    """Tell whether a request with these Origin headers may connect.

    The match is exact, as browsers serialise an origin (RFC 6454 section 6.2): scheme and host in
    lower case, the port only where it is not the scheme's default, no path. `null` must be listed
    like any other. A request with two Origin headers never matches.
    """
    if not allowlist:
        return True
    if not origins:
        return NO_ORIGIN in allowlist
    # "none" in the list means a missing header, not a client that sends the word itself.
    return len(origins) == 1 and origins[0] in allowlist - {NO_ORIGIN}


def _asks_for_upgrade(headers: HeaderFields) -> bool:
    return "upgrade" in _tokens(headers, "Connection") and "websocket" in _tokens(
        headers, "Upgrade"
    )


def _tokens(headers: HeaderFields, name: str) -> set[str]:
    return {token.strip().lower() for value in headers.get_all(name) for token in value.split(",")}
