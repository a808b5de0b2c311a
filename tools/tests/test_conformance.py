"""`speech conformance` passes on the gateway, and each check fails on a gateway that has its fault.

The gateway is the real server with a store that says yes; a fault is planted in what it says.
"""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from speech_gateway import handshake
from speech_gateway.connection import GatewayConnection
from speech_gateway.errors import DISCARDING, Ending, Failure, NoText
from speech_gateway.handshake import Refusal
from speech_gateway.server import GatewayServer
from speech_gateway.testing import CONFIG, LIMITS, FakeAnswers, run_server
from speech_gateway.utterance import Text
from speech_tools.conformance import command, report
from speech_tools.conformance.checks import CHECKS
from speech_tools.conformance.exchange import Target
from speech_tools.conformance.run import Result, Verdict, run
from support.invoke import invoke
from support.scripted_gateway import CORRELATION_ID, scripted
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]
QUICK = replace(LIMITS, idle_timeout_seconds=0.3, max_session_seconds=3.0, max_audio_bytes=200_000)
UNSEEN = {name for name, each in CHECKS.items() if "not_testable" in each.run.__qualname__}
"""What no client can see."""
TEXT = Text("", "en", 0.0, "event-of-the-text", "speech.asr.text", 0, 7)


@pytest.fixture(autouse=True)
def described():
    """Hold no frame to the description: here both sides say what is not in it."""


class Answering(FakeAnswers):
    """Gives each client a text as soon as one is expected."""

    def expect(self, correlation_id, tell):
        asyncio.get_running_loop().call_later(0.05, tell, TEXT)
        return super().expect(correlation_id, tell)


async def held(names: set[str], *, texts: bool = True):
    """Run checks against a whole server, whose clocks are quick."""
    config = replace(CONFIG, limits=QUICK, origin_allowlist=frozenset({"none"}))
    async with run_server(config) as server:
        if texts:
            server.gateway.answers = Answering()
        checks = [each for name, each in CHECKS.items() if name in names]
        return [each async for each in run(Target(server.url), checks)]


def verdicts(results: list[Result]) -> dict[str, Verdict]:
    return {each.check.name: each.verdict for each in results}


def of(verdict: Verdict, results: list[Result]) -> set[str]:
    return {each.check.name for each in results if each.verdict is verdict}


def test_the_gateway_conforms():
    """Each check passes, but for those that no client can see, with and without texts."""
    results = asyncio.run(held(set(CHECKS)))
    assert [report.line(each) for each in results if each.bad] == []
    unseen = UNSEEN | {"refusals/results_not_offered"}
    assert of(Verdict.NOT_TESTABLE, results) == unseen
    text = {"refusals/results_not_offered", "what-the-gateway-sends/recognized"}
    without = asyncio.run(held(text, texts=False))
    assert of(Verdict.PASSED, without) == {"refusals/results_not_offered"}


# Planted faults

Plant = Callable[[pytest.MonkeyPatch], None]


def in_message(status: str, /, **changed: Any) -> Plant:
    """Let messages of a status say something else; `None` takes a field out."""

    def mangle(text: str) -> str:
        message = json.loads(text)
        if message["status"] == status:
            message = {k: v for k, v in {**message, **changed}.items() if v is not None}
        return json.dumps(message)

    return in_text(mangle)


def in_text(mangle: Callable[[str], str]) -> Plant:
    """Let every message be another."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        say = GatewayConnection.say
        patch.setattr(GatewayConnection, "say", lambda self, text: say(self, mangle(text)))

    return plant


def in_rule(ending: Ending, **changed: Any) -> Plant:
    """Let a way to end have another row in the table."""
    return lambda patch: patch.setattr(ending, "_value_", replace(ending.value, **changed))


def in_refusal(refusal: Refusal, **changed: Any) -> Plant:
    """Let a refusal be another one."""
    return lambda patch: patch.setattr(refusal, "_value_", replace(refusal.value, **changed))


def replaced(where: str, what: object) -> Plant:
    """Let something of the gateway's be something else."""
    return lambda patch: patch.setattr(where, what)


REFUSED = {
    f"refusals/{each.value.code}": in_refusal(each, code="no")
    for each in Refusal
    if each.value.status not in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}
    and each is not Refusal.RESULTS_NOT_OFFERED
}
ENDED = {
    f"how-an-utterance-ends/{each.value.code}": in_rule(each, close_code=1000, code="other")
    for each in (
        Ending.IDLE_TIMEOUT,
        Ending.SESSION_EXPIRED,
        Ending.AUDIO_TOO_LONG,
        Ending.RATE_LIMITED,
        Ending.INVALID_MESSAGE,
        Ending.UNSUPPORTED_AUDIO,
        Ending.EMPTY_AUDIO,
    )
}


def also(after: str, message: dict[str, Any]) -> Plant:
    """Let a message follow each one of a status."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        say = GatewayConnection.say

        def both(self: GatewayConnection, text: str) -> None:
            say(self, text)
            said = json.loads(text)
            if said["status"] == after:
                say(self, json.dumps({"correlation_id": said["correlation_id"], **message}))

        patch.setattr(GatewayConnection, "say", both)

    return plant


def refusing(refusal: Refusal, is_refused: Callable[[handshake.Request], bool]) -> Plant:
    """Let some requests be refused before they are judged."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        judge = handshake.judge

        def first(request: handshake.Request, *arguments: Any, **more: Any) -> Any:
            return refusal if is_refused(request) else judge(request, *arguments, **more)

        patch.setattr(handshake, "judge", first)

    return plant


def with_query(text: str) -> Plant:
    """Let a query with some text be refused."""
    return refusing(Refusal.INVALID_LANGUAGE, lambda request: text in request.target)


def in_settings(**changed: Any) -> Plant:
    """Let the server have other settings of the library's."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        settings = GatewayServer._websocket_settings
        patch.setattr(
            GatewayServer, "_websocket_settings", lambda self: {**settings(self), **changed}
        )

    return plant


def greeting_of(**limits: int) -> Plant:
    """Let the greeting tell limits that are not kept."""
    return in_message("connected", limits={**asdict(QUICK), **limits})


def no_pongs(patch: pytest.MonkeyPatch) -> None:
    """Let pings be unanswered."""
    send = ServerProtocol.send_frame

    def all_but_pongs(protocol: ServerProtocol, frame: Frame) -> None:
        if frame.opcode is not Opcode.PONG:
            send(protocol, frame)

    patch.setattr(ServerProtocol, "send_frame", all_but_pongs)


def normal_close(patch: pytest.MonkeyPatch) -> None:
    """Let a frame that RFC 6455 forbids be closed as if all were well."""
    fail = GatewayConnection._fail
    patch.setattr(GatewayConnection, "_fail", lambda self, _code, reason: fail(self, 1000, reason))


def kept_in_silence(patch: pytest.MonkeyPatch) -> None:
    """Let what was to be discarded be stored."""
    patch.delitem(DISCARDING, Ending.IDLE_TIMEOUT)


_RECOGNIZED = {
    "status": "recognized",
    "text": "",
    "language": "en",
    "confidence": 0,
    "event_id": "e",
    "topic": "t",
    "partition": 0,
    "offset": 0,
}
FAULTS: dict[str, Plant] = {
    **REFUSED,
    **ENDED,
    "refusals/order": refusing(
        Refusal.UPGRADE_REQUIRED, lambda each: "Upgrade" not in each.headers
    ),
    "refusals/results_not_offered": in_refusal(Refusal.RESULTS_NOT_OFFERED, code="no"),
    "what-the-gateway-sends/connected": in_message("connected", audio=None),
    "connecting/language": with_query("language=zh"),
    "connecting/client_ref": in_message("connected", client_ref="other"),
    "connecting/on_disconnect": with_query("discard"),
    "connecting/any-other-query-parameter": with_query("volume"),
    "connecting/a-correlation-id-in-any-form": in_text(
        lambda text: json.dumps(json.loads(text) | {"correlation_id": CORRELATION_ID})
    ),
    "connecting/sec-websocket-protocol": in_settings(
        select_subprotocol=lambda _connection, offered: next(iter(offered), None)
    ),
    "connecting/sec-websocket-extensions": in_settings(compression="deflate"),
    "connecting/traceparent": refusing(
        Refusal.INVALID_LANGUAGE, lambda each: "nonsense" in each.headers.get_all("traceparent")
    ),
    "how-an-utterance-ends/done": in_rule(Ending.DONE, close_code=1001),
    "what-the-gateway-sends/accepted": in_message("accepted", sha256="0" * 64),
    "audio/cut-anywhere": in_message("accepted", audio_bytes=638),
    "what-the-client-sends/done": in_message("accepted", status="rejected"),
    "what-the-client-sends/after-the-end": in_message("accepted", audio_bytes=1280),
    "what-the-client-sends/pings": no_pongs,
    "limits-and-rates/one-message": greeting_of(max_chunk_bytes=100_000),
    "limits-and-rates/text-message": replaced("speech_gateway.messages.MAX_TEXT_BYTES", 4_095),
    "limits-and-rates/audio-messages": in_message("accepted", audio_bytes=640),
    "limits-and-rates/audio-an-utterance": greeting_of(max_audio_bytes=200_002),
    "the-text/unasked": also("accepted", _RECOGNIZED),
    "what-the-gateway-sends/recognized": in_message("recognized", confidence=2),
    "what-the-gateway-sends/error": in_message("error", observed=None),
    "how-an-utterance-ends/chunk_too_large": greeting_of(max_chunk_bytes=1_000),
    "how-an-utterance-ends/protocol_error": normal_close,
    "saying-it-again/idle_timeout": kept_in_silence,
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_is_found(name, monkeypatch):
    """By the check that is about it."""
    FAULTS[name](monkeypatch)
    (result,) = asyncio.run(held({name}, texts=name != "refusals/results_not_offered"))
    assert result.verdict is Verdict.FAILED
    assert result.why
    assert result.frames


def test_each_check_has_a_fault():
    """A check that cannot fail is none."""
    assert set(FAULTS) == set(CHECKS) - UNSEEN


# The list of checks and the document

DOCUMENT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


def test_the_name_of_each_check_is_a_place_in_the_document():
    """Its section is there."""
    anchors = {
        heading.strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)", DOCUMENT, re.MULTILINE)
    }
    assert {name.partition("/")[0] for name in CHECKS} - anchors == set()


def test_each_row_of_the_tables_has_a_check():
    """Also what nobody can see has its line, with the reason."""
    endings = {each.value.code for each in (*Ending, *Failure, *NoText)}
    messages = {"connected", "draining", "accepted", "recognized", "error"}
    rows = {f"refusals/{each.value.code}" for each in Refusal}
    rows |= {f"how-an-utterance-ends/{code}" for code in endings}
    rows |= {f"what-the-gateway-sends/{status}" for status in messages}
    assert rows - set(CHECKS) == set()


# The command


@pytest.fixture
def refusing_gateway():
    """A gateway that greets as it should, and whose errors say nothing."""

    def script(visit):
        visit.greet()
        visit.hear()
        visit.fail("empty_audio", 1000, retryable=False, stored="no")

    with scripted(script) as (url, _):
        yield url


EMPTY = ["--only", "how-an-utterance-ends/empty_audio"]


def test_a_failure_shows_what_passed(refusing_gateway, tmp_path):
    """People read the frames, programs the JSON or JUnit's XML; it ends with 1."""
    junit = tmp_path / "junit.xml"
    done = invoke(command.app, refusing_gateway, *EMPTY, "--junit", junit)
    assert done.returncode == command.Exit.VIOLATES
    assert "expected the close 1008 empty_audio, got 1000 empty_audio" in done.stdout
    assert '→ {"event": "done"}' in done.stdout
    assert "0 passed, 1 failed, 0 not testable here" in done.stdout
    (case,) = ET.parse(junit).getroot().findall("testcase")  # noqa: S314 - our own
    assert case.attrib["name"] == EMPTY[1]
    assert "← close 1000" in case.find("failure").text
    told = json.loads(invoke(command.app, refusing_gateway, *EMPTY, "--json").stdout)
    assert [(each["name"], each["verdict"]) for each in told["checks"]] == [(EMPTY[1], "failed")]


def test_an_expected_failure_is_none_and_a_stale_one_is(refusing_gateway, tmp_path):
    """So a list of known failures is always true."""
    known = tmp_path / "known"
    known.write_text("# not ours\nhow-an-utterance-ends/empty_audio  # see the proxy\n")
    done = invoke(command.app, refusing_gateway, *EMPTY, "--expected-failures", known)
    assert (done.returncode, "1 of the failures expected" in done.stdout) == (0, True)
    known.write_text("connecting/language\n")
    more = ["--only", "connecting/language", "--expected-failures", known]
    done = invoke(command.app, refusing_gateway, *more)
    assert (done.returncode, "take it off the list" in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "nosuch"], "--only nosuch: expected a check or a section of --list"),
        (["--expected-failures", "nosuch"], "--expected-failures nosuch: cannot read it"),
        (["--expected-failures", __file__], "--expected-failures: no check is named"),
        (["http://localhost"], "expected ws://HOST:PORT/ws/audio"),
    ],
)
def test_a_wrong_usage_is_told(arguments, said):
    """In one line, with 2."""
    done = invoke(command.app, *arguments)
    assert (done.returncode, said in done.stderr) == (2, True)


def test_where_nobody_answers_it_is_not_now():
    """There is no verdict on a gateway that is away."""
    done = invoke(command.app, "ws://127.0.0.1:9/ws/audio")
    assert (done.returncode, done.stdout) == (3, "")


def test_the_list_names_each_check():
    """With what it says, and without a gateway."""
    done = invoke(command.app, "--list")
    assert done.returncode == 0
    assert all(name in done.stdout and each.says in done.stdout for name, each in CHECKS.items())
