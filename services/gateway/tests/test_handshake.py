"""What is refused before the upgrade, in which order, and with which answer."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_gateway.handshake import (
    Refusal,
    Request,
    Wanted,
    allows_origin,
    is_language_tag,
    judge,
)

APP = "https://app.example"
UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "websocket")]


class Fields(list[tuple[str, str]]):
    """Header fields, as a list of pairs; names are looked up in any case."""

    def get_all(self, key: str, /) -> Sequence[str]:
        return [value for name, value in self if name.lower() == key.lower()]


def request(
    target: str = "/ws/audio", method: str = "GET", headers: Sequence[tuple[str, str]] = UPGRADE
) -> Request:
    return Request(method, target, Fields(headers))


def test_the_refusals_stand_in_the_protocols_order() -> None:
    """The enumeration is the order in which they are decided, each with status and code."""
    assert [(int(refusal.value.status), refusal.value.code) for refusal in Refusal] == [
        (404, "not_found"),
        (405, "method_not_allowed"),
        (426, "upgrade_required"),
        (400, "invalid_language"),
        (400, "invalid_results"),
        (400, "results_not_offered"),
        (400, "invalid_client_ref"),
        (400, "invalid_on_disconnect"),
        (403, "origin_not_allowed"),
        (503, "draining"),
        (503, "not_ready"),
        (503, "at_capacity"),
        (429, "too_many_connections_from_address"),
    ]


@pytest.mark.parametrize("refusal", Refusal)
def test_an_answer_is_json_and_says_when_to_come_back(refusal: Refusal) -> None:
    """`code` and `message`, and nothing else; Retry-After on 503 and 429 alone."""
    answer = refusal.value
    assert json.loads(answer.body()) == {"code": answer.code, "message": answer.message}
    told_to_retry = ("Retry-After", "1") in answer.headers
    assert told_to_retry is (answer.status in {503, 429})


def test_answers_carry_the_headers_that_http_asks_for() -> None:
    """405 names the methods (RFC 9110, 15.5.6), 426 the protocol (15.5.22)."""
    assert Refusal.METHOD_NOT_ALLOWED.value.headers == (("Allow", "GET"),)
    assert Refusal.UPGRADE_REQUIRED.value.headers == (
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
    )


def test_of_several_reasons_the_first_is_the_answer() -> None:
    """A request that is wrong in every way, put right one way after the other."""
    wrong = {"target": "/?language=!", "method": "POST", "headers": [("Origin", "https://evil")]}
    mended = [
        {},
        {"target": "/ws/audio?language=!"},
        {"method": "GET"},
        {"headers": [*UPGRADE, ("Origin", "https://evil")]},
        {"target": "/ws/audio?language=en"},
        {"headers": [*UPGRADE, ("Origin", APP)]},
    ]
    verdicts = []
    for step in mended:
        wrong |= step
        verdicts.append(judge(request(**wrong), frozenset({APP})))
    assert verdicts == [
        Refusal.NOT_FOUND,
        Refusal.METHOD_NOT_ALLOWED,
        Refusal.UPGRADE_REQUIRED,
        Refusal.INVALID_LANGUAGE,
        Refusal.ORIGIN_NOT_ALLOWED,
        Wanted(language_hint="en"),
    ]


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "",
        "*",
        "/ws",
        "/ws/audio/",
        "//ws/audio",
        "/WS/audio",
        "/ws%2Faudio",
        "/ws/au\tdio",
        "/ws/../ws/audio",
        "/ws/audio;a",
        "/ws/audio#a",
        "//[",
        "http://gateway/ws/audio",
    ],
)
def test_there_is_one_path_and_it_is_compared_exactly(target: str) -> None:
    """Nothing is decoded, normalised or forgiven."""
    assert judge(request(target), frozenset()) is Refusal.NOT_FOUND


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS", "get"])
def test_there_is_one_method(method: str) -> None:
    """Methods are case-sensitive (RFC 9110, 9.1)."""
    assert judge(request(method=method), frozenset()) is Refusal.METHOD_NOT_ALLOWED


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Connection", "Upgrade")],
        [("Upgrade", "websocket")],
        [("Connection", "keep-alive"), ("Upgrade", "websocket")],
        [("Connection", "Upgrade"), ("Upgrade", "h2c")],
        [("Connection", "upgrade-insecure"), ("Upgrade", "websockets")],
    ],
)
def test_a_request_that_does_not_ask_for_a_websocket_is_told_so(headers) -> None:
    """Both headers must name it, as a whole token."""
    assert judge(request(headers=headers), frozenset()) is Refusal.UPGRADE_REQUIRED


@pytest.mark.parametrize(
    "headers",
    [
        [("connection", "keep-alive, UPGRADE"), ("upgrade", "WebSocket")],
        [("Connection", "keep-alive"), ("Connection", "upgrade"), ("Upgrade", "h2c , websocket")],
    ],
)
def test_the_upgrade_is_understood_in_any_case_and_among_others(headers) -> None:
    """Lists of tokens, also over several headers (RFC 9110, 5.3)."""
    assert judge(request(headers=headers), frozenset()) == Wanted(None)


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("", None),
        ("?", None),
        ("?x=1", None),
        ("?Language=!", None),
        ("?language=en-US", "en-US"),
        ("?language=en%2DUS", "en-US"),
        ("?correlation_id=mine&language=de&x=1", "de"),
    ],
)
def test_the_language_hint_is_taken_from_the_query(query: str, hint: str | None) -> None:
    """Optional; unknown parameters are ignored, a correlation id among them."""
    assert judge(request(f"/ws/audio{query}"), frozenset()) == Wanted(hint)


@pytest.mark.parametrize(
    "query",
    [
        "language=",
        "language",
        "language=en&language=de",
        "language=en&language=en",
        "language=&language=en",
        "language=en_US",
        "language=en+US",
        "language=en%00",
        "language=%ff",
        "language=en-US%0d%0aX:1",
        "language=deutsch-",
    ],
)
def test_a_malformed_or_doubled_language_is_refused(query: str) -> None:
    """Also where it is there but empty."""
    assert judge(request(f"/ws/audio?{query}"), frozenset()) is Refusal.INVALID_LANGUAGE


@pytest.mark.parametrize(
    "tag",
    [
        "en",
        "EN-us",
        "de-CH-1996",
        "es-419",
        "zh-cmn-Hans-CN",
        "sl-rozaj-biske",
        "en-US-u-ca-gregory",
        "de-x-dialekt",
        "x-elvish",
        "i-klingon",
        "sgn-BE-FR",
        "zh-min-nan",
        "und",
        "zh-cmn-Hans-CN-x-aaaaaaaa-bbbbbb-bb",
    ],
)
def test_well_formed_bcp_47_tags_are_known(tag: str) -> None:
    """Those of RFC 5646: section 2.1 and the appendix, private use and grandfathered too."""
    assert is_language_tag(tag)


@pytest.mark.parametrize(
    "tag",
    [
        "",
        "e",
        "x",
        "x-",
        "a-DE",
        "1a",
        "en_US",
        "en-",
        "-en",
        "en--US",
        "en-12",
        "en-u",
        "en-x",
        "en-Latn-Latn",
        "de-419-DE",
        "abcdefghi",
        "en-x-123456789",
        "en-US\n",
        "\uff45\uff4e",
        "en-\u0661\u0662\u0663",
        "zh-cmn-Hans-CN-x-aaaaaaaa-bbbbbb-bbb",
    ],
)
def test_what_is_not_a_language_tag_is_known(tag: str) -> None:
    """Nothing that could not stand in a header or a field of the event."""
    assert not is_language_tag(tag)


@settings(deadline=None)
@given(st.text(alphabet="aeno1X-_ é\n", max_size=40))
def test_no_text_upsets_the_language_parser(text: str) -> None:
    """It answers yes or no, and yes only to plain short ASCII."""
    if is_language_tag(text):
        assert text.isascii()
        assert text.replace("-", "").isalnum()
        assert len(text) <= 35


LIST = frozenset({APP, "null"})


@pytest.mark.parametrize(
    ("origins", "allowlist", "allowed"),
    [
        ([], frozenset(), True),
        (["https://evil"], frozenset(), True),
        ([APP, APP], frozenset(), True),
        ([APP], LIST, True),
        (["null"], LIST, True),
        (["null"], frozenset({APP}), False),
        (["https://evil"], LIST, False),
        (["https://app.example.evil"], LIST, False),
        (["https://App.example"], LIST, False),
        (["https://app.example/"], LIST, False),
        (["http://app.example"], LIST, False),
        (["https://app.example:443"], LIST, False),
        ([""], LIST, False),
        ([APP, APP], LIST, False),
        ([APP, "https://evil"], LIST, False),
        ([], LIST, False),
        ([], LIST | {"none"}, True),
        ([APP], LIST | {"none"}, True),
        (["none"], LIST | {"none"}, False),
    ],
)
def test_origins_are_let_in_by_exact_match_alone(origins, allowlist, allowed) -> None:
    """An empty list lets everyone in; `none` stands for a missing header, never for the word."""
    assert allows_origin(origins, allowlist) is allowed
    headers = [*UPGRADE, *(("Origin", origin) for origin in origins)]
    expected = Wanted(None) if allowed else Refusal.ORIGIN_NOT_ALLOWED
    assert judge(request(headers=headers), allowlist) == expected


# The text on the same connection, and saying it again


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?results=text", Wanted(results=True)),
        ("?client_ref=A.z_0~-9", Wanted(client_ref="A.z_0~-9")),
        (f"?client_ref={'x' * 64}", Wanted(client_ref="x" * 64)),
        ("?on_disconnect=store", Wanted()),
        ("?on_disconnect=discard", Wanted(discards=True)),
        (
            "?language=en&results=text&client_ref=a&on_disconnect=discard&more=1",
            Wanted("en", results=True, client_ref="a", discards=True),
        ),
    ],
)
def test_the_query_says_what_the_client_wants(query: str, expected: Wanted) -> None:
    """Each parameter is optional; one that is not known is ignored."""
    assert judge(request(f"/ws/audio{query}"), frozenset(), offers_results=True) == expected


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        *((f"results={value}", Refusal.INVALID_RESULTS) for value in ("", "Text", "audio")),
        ("results=text&results=text", Refusal.INVALID_RESULTS),
        *(
            (f"client_ref={value}", Refusal.INVALID_CLIENT_REF)
            for value in ("", "x" * 65, "a b", "a%0Ab", "%C3%A9", "a/b")
        ),
        ("client_ref=a&client_ref=a", Refusal.INVALID_CLIENT_REF),
        *((f"on_disconnect={value}", Refusal.INVALID_ON_DISCONNECT) for value in ("", "keep")),
        ("on_disconnect=store&on_disconnect=store", Refusal.INVALID_ON_DISCONNECT),
        # Of several the first one of the protocol's order is told.
        ("on_disconnect=x&client_ref=&results=x&language=_", Refusal.INVALID_LANGUAGE),
        ("on_disconnect=x&client_ref=&results=x", Refusal.INVALID_RESULTS),
        ("on_disconnect=x&client_ref=", Refusal.INVALID_CLIENT_REF),
    ],
)
def test_a_parameter_that_is_not_taken_is_refused(query: str, refusal: Refusal) -> None:
    """Malformed, empty or given twice."""
    assert judge(request(f"/ws/audio?{query}"), frozenset(), offers_results=True) is refusal


def test_a_gateway_that_sends_no_texts_says_so() -> None:
    """Only where the parameter itself is fine."""
    wanted = request("/ws/audio?results=text&client_ref=")
    assert judge(wanted, frozenset()) is Refusal.RESULTS_NOT_OFFERED
    assert judge(request("/ws/audio?results=x"), frozenset()) is Refusal.INVALID_RESULTS
