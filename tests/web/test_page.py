"""The page in a real browser, a recording as its microphone, before a whole pipeline."""

import io
import re
import signal
import subprocess
import wave
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import jiwer
import pytest
from speech_tools.protocol import audio
from support import recordings
from support.chromium import browser
from support.ports import free_ports
from support.proxy import Proxy
from support.waiting import until
from support.web_page import BROWSER, page_of
from whisper_normalizer.english import EnglishTextNormalizer

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(240)]

SAMPLES = Path(__file__).parents[2] / "samples"
SENTENCE = audio.load(SAMPLES / "sense-and-sensibility-0870.wav").pcm
WORDS = (
    "and mister john dashwood had then leisure to consider how much there might be prudently in "
    "his power to do for them"
)
RATE = 32_000
OPEN = ("open", "/")
DONE = ("state", ["done", "error"])
TEN_SECONDS = str(44 + 10 * RATE)


def on_the_topic(topics, receipts: list[str]) -> bytes:
    """Return the PCM of the utterances with these ids, joined in their order."""
    joined = b""
    for correlation_id in receipts:
        with wave.open(io.BytesIO(topics.audio(correlation_id).payload.audio_bytes)) as file:
            joined += file.readframes(file.getnframes())
    return joined


def wrong_words(said: str, heard: str) -> float:
    normal = EnglishTextNormalizer()
    return float(jiwer.wer(normal(said), normal(heard)))


def test_what_is_spoken_is_stored_to_the_last_sample_and_comes_back_as_words(
    browse, start, recogniser, topics, sound
):
    """Hold the button for seven seconds: every sample of the worklet is on the topic, in order."""
    steps = [OPEN, ("down", None), ("state", "listening"), ("heard", 7.2), ("up", None), DONE]
    with start() as gateway, page_of(gateway.url) as url:
        seen = browse(url, steps, sound=sound(SENTENCE))
    assert (seen.state, seen.message, seen.complaints, seen.live) == ("done", "", [], 0)
    assert len(seen.made) >= 7 * RATE
    assert on_the_topic(topics, seen.receipts) == seen.made
    assert wrong_words(WORDS, seen.transcript) <= 0.2


def test_a_bundler_leaves_it_whole(packages, browse, start, topics, sound, tmp_path):
    """Vite finds the worklet, and what it makes runs under the same policy."""
    vite = ["node", packages / "node_modules/vite/bin/vite.js", "build"]
    done = subprocess.run(  # noqa: S603
        [*vite, "--outDir", tmp_path / "built"],
        cwd=packages,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    built = [each for each in (tmp_path / "built").rglob("*") if each.is_file()]
    files = [each.relative_to(tmp_path / "built").as_posix() for each in built]
    steps = [OPEN, ("click", None), ("heard", 2), ("click", None), DONE]
    with (
        start(RESULT_TIMEOUT_SECONDS="0.1") as gateway,
        page_of(gateway.url, tmp_path / "built", files) as url,
    ):
        seen = browse(url, steps, sound=sound(SENTENCE))
    assert (seen.state, seen.complaints) == ("done", [])
    assert on_the_topic(topics, seen.receipts) == seen.made


def spoken(seconds: float) -> tuple[bytes, str]:
    """Return at least so much speech, of many recordings, and what is said in it."""
    clip = next(recordings.long_clips())
    pcm, said = clip.samples, clip.said
    while len(pcm) < seconds * RATE:
        pcm, said = pcm + bytes(RATE // 2) + clip.samples, f"{said} {clip.said}"
    return pcm, said


@pytest.mark.parametrize(
    ("seconds", "most"),
    [(24, TEN_SECONDS), pytest.param(70, "1572864", marks=pytest.mark.full)],
)
def test_what_lasts_longer_than_an_utterance_goes_on_in_the_next(
    seconds, most, browse, start, recogniser, topics, sound
):
    """Several utterances, no sample between them lost, and one text."""
    pcm, _ = spoken(seconds)
    steps = [OPEN, ("keydown", " "), ("heard", seconds), ("keyup", " "), DONE]
    with start(MAX_BUFFER_BYTES=most) as gateway, page_of(gateway.url) as url:
        seen = browse(url, steps, sound=sound(pcm))
    assert (seen.state, seen.message, seen.complaints) == ("done", "", [])
    assert len(seen.receipts) >= 2
    assert on_the_topic(topics, seen.receipts) == seen.made
    assert len(seen.transcript.split()) > seconds


def test_a_gateway_that_is_killed_loses_nothing(browse, start, recogniser, topics, sound):
    """What was said before, meanwhile and after it is on the topic, once for each name."""
    (port,) = free_ports(["gateway"]).values()
    running = start(PORT=str(port))
    gateway = running.__enter__()
    again = start(PORT=str(port))

    def kill() -> None:
        gateway.process.signal(signal.SIGKILL)
        running.__exit__(None, None, None)
        again.__enter__()

    steps = [OPEN, ("down", None), ("heard", 3), ("say", "kill")]
    steps += [("heard", 7.2), ("up", None), DONE]
    try:
        with page_of(gateway.url) as url:
            seen = browse(url, steps, sound=sound(SENTENCE), on=kill)
    finally:
        again.__exit__(None, None, None)
    assert (seen.state, seen.message) == ("done", "")
    assert on_the_topic(topics, seen.receipts) == seen.made


def test_a_network_that_is_cut_loses_nothing(browse, start, recogniser, topics, sound):
    """Nothing passes for a while, and then what was open is broken; all is on the topic once."""
    with start(IDLE_TIMEOUT_SECONDS="2") as gateway:
        given_up = partial(gateway.process.wait_for, event="session", ended_by="idle_timeout")
        there = urlsplit(gateway.url)
        assert there.port is not None
        proxy = Proxy(target=there.port)

        def cut() -> None:
            proxy.fault = "swallow"
            given_up()
            proxy.fault = "none"
            proxy.break_all()

        steps = [OPEN, ("down", None), ("heard", 3), ("say", "cut")]
        steps += [("heard", 7.2), ("up", None), DONE]
        try:
            with page_of(there._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()) as url:
                seen = browse(url, steps, sound=sound(SENTENCE), on=cut)
        finally:
            proxy.close()
    assert (seen.state, seen.message, seen.doubled) == ("done", "", False)
    assert on_the_topic(topics, seen.receipts) == seen.made


RECORD = """
globalThis.made = 0;
const Node = globalThis.AudioWorkletNode;
globalThis.AudioWorkletNode = class extends Node {
  constructor(...all) {
    super(...all);
    this.port.addEventListener("message", ({ data }) => (globalThis.made += data.pcm?.length ?? 0));
  }
};
"""
CLICK = "document.getElementById('talk').click()"
STATE = "document.querySelector('main').dataset.state"
RECEIPTS = (
    "[...document.querySelectorAll('#receipts li')].map((each) => each.dataset.correlationId)"
)


@pytest.mark.parametrize("seconds", [5, pytest.param(25, marks=pytest.mark.full)])
def test_a_hidden_page_goes_on_listening(seconds, packages, start, topics, sound, tmp_path_factory):
    """Browsers slow the timers of a hidden page; the samples do not wait for timers."""
    profile = tmp_path_factory.mktemp("profile")
    with (
        start(RESULT_TIMEOUT_SECONDS="0.1") as gateway,
        page_of(gateway.url) as url,
        browser(BROWSER, profile, sound(SENTENCE)) as chromium,
    ):
        tab = chromium.open()
        tab.call("Page.enable")
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=RECORD)
        tab.call("Page.navigate", url=url)
        until(lambda: tab.evaluate(f"document.readyState == 'complete' && {STATE}"), seconds=10)
        tab.evaluate(CLICK)
        until(lambda: tab.evaluate(STATE), lambda state: state == "listening", seconds=10)
        chromium.open()
        assert tab.evaluate("document.visibilityState") == "hidden"
        enough = seconds * RATE // 2
        until(lambda: tab.evaluate("made"), lambda made: made >= enough, seconds=seconds + 20)
        tab.evaluate(CLICK)
        until(lambda: tab.evaluate(STATE), lambda state: state == "done", seconds=20)
        made, receipts = tab.evaluate("made"), tab.evaluate(RECEIPTS)
    assert len(on_the_topic(topics, receipts)) == 2 * made


# How the button is pressed


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([("press", "Enter"), ("heard", 1), ("press", " ")], id="keys"),
        pytest.param([("click", None), ("heard", 1), ("click", None)], id="clicks"),
        pytest.param(
            [*[("down", None), ("up", None)], ("heard", 1), *[("down", None), ("up", None)]],
            id="taps",
        ),
    ],
)
def test_a_tap_begins_and_the_next_one_ends(steps, browse, start, sound):
    """With the mouse, the keys, and as a screen reader clicks."""
    with start(RESULT_TIMEOUT_SECONDS="0.1") as gateway, page_of(gateway.url) as url:
        seen = browse(url, [OPEN, *steps, DONE], sound=sound(SENTENCE))
    assert (seen.state, len(seen.receipts), seen.live) == ("done", 1, 0)


def test_escape_throws_away(browse, start, sound):
    """Nothing is stored, and the microphone is free."""
    steps = [OPEN, ("down", None), ("heard", 1), ("press", "Escape"), DONE]
    with start() as gateway, page_of(gateway.url) as url:
        seen = browse(url, steps, sound=sound(SENTENCE))
    assert (seen.state, seen.receipts, seen.live) == ("error", [], 0)
    assert seen.message.startswith("Cancelled.")


def test_quick_taps_leave_a_state_and_no_microphone(browse, start, sound):
    """Released before the microphone is there, begun twice, ended while it begins."""
    taps = [("click", None)] * 5
    with start(RESULT_TIMEOUT_SECONDS="0.1") as gateway, page_of(gateway.url) as url:
        seen = browse(
            url, [OPEN, *taps, ("pause", 1), ("press", "Escape"), DONE], sound=sound(SENTENCE)
        )
    assert (seen.complaints, seen.live) == ([], 0)


# How it looks, and for whom


STATES = {
    "idle": [],
    "listening": [("down", None), ("heard", 1)],
    "done": [("up", None), ("state", "done")],
}


@pytest.mark.parametrize(
    "look", [{}, {"dark": True}, {"width": 320, "still": True}], ids=["light", "dark", "narrow"]
)
def test_it_is_accessible_in_each_state(look, browse, start, sound, tmp_path):
    """Axe finds nothing, also in the dark, on a phone, and without motion."""
    steps = [OPEN]
    for state, more in STATES.items():
        steps += [*more, ("axe", state), ("screenshot", str(tmp_path / f"{state}.png"))]
    with start(RESULT_TIMEOUT_SECONDS="0.1") as gateway, page_of(gateway.url) as url:
        seen = browse(url, [*steps, ("overflow", None)], sound=sound(SENTENCE), **look)
    assert seen.axe == {state: [] for state in STATES}
    assert seen.overflow <= 0


def test_a_blocked_microphone_is_told_in_a_sentence(browse, start, tmp_path):
    """What happened, and what a person can do."""
    steps = [OPEN, ("click", None), DONE, ("axe", "error")]
    steps += [("screenshot", str(tmp_path / "denied.png"))]
    with start() as gateway, page_of(gateway.url) as url:
        seen = browse(url, steps, denied=True)
    assert (seen.state, seen.axe) == ("error", {"error": []})
    assert re.match("The microphone is blocked. Allow it", seen.message)


def test_a_service_that_is_not_there_is_told_after_some_attempts(browse, sound):
    """And nothing that was said is lost silently."""
    hurry = ("run", "void (Math.random = () => -0.4)")
    steps = [OPEN, hurry, ("down", None), ("heard", 1), ("up", None), DONE]
    with page_of("ws://127.0.0.1:9/ws/audio") as url:
        seen = browse(url, steps, sound=sound(SENTENCE))
    assert (seen.state, seen.live) == ("error", 0)
    assert seen.message.startswith("The service cannot be reached")
