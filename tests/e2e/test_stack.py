"""What a developer sees of the stack: speech in, text out, all of it traced, also under load."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from speech_tools.stream.command import app
from speech_tools.trace.tracing import HOPS
from support import conformance
from support.invoke import invoke

MAX_AUDIO_BYTES = 1_572_864 - 44  # of a WAV file of the largest size, what is not its header
SAMPLE_SECONDS = 0.2
MOST_OF_A_LIMIT = 0.70
ALL_TEXTS_SECONDS = 600  # about 70 on two idle cores

PEAK = f"""
(line,) = [line for line in open("/proc/1/status") if line.startswith("VmHWM:")]
print(int(line.split()[1]) * 1024 / {256 << 20})
"""


def test_an_utterance_is_traced_from_the_handshake_to_its_text(stack, speech):
    """What is spoken comes out as its words, with every hop in the order of time."""
    (spoken,) = stack.speak(speech)
    found = stack.transcribed(spoken)
    assert [(result["text"], result["repeats"]) for result in found["results"]] == [
        ("Go forward 10 meters.", 0)
    ]
    assert [hop["name"] for hop in found["hops"]] == [*HOPS]
    times = [hop["at_ms"] for hop in found["hops"]]
    assert None not in times
    assert times == sorted(times)
    assert [hop["place"]["topic"] for hop in found["hops"] if hop["place"]] == [
        "speech.audio.ingress",
        "speech.asr.text",
    ]


def test_the_protocol_holds(stack):
    """As `speech conformance` sees it from outside; the text comes too."""
    url = f"ws://localhost:{stack.ports['GATEWAY_HOST_PORT']}/ws/audio"
    assert "what-the-gateway-sends/recognized" in conformance.passed(conformance.held(url))


def test_bringing_it_up_again_changes_nothing(stack):
    """A second `up --build --wait` ends 0 and leaves every container as it is."""
    before = {service: each.id for service, each in stack.containers().items()}
    stack.up()
    after = {service: each.id for service, each in stack.containers().items()}
    assert set(before) == {"kafka", "schema-registry", "gateway-service", "asr-service", "page"}
    assert after == before


def test_the_topics_have_their_limits(stack):
    """The one-shot has made all topics for the largest records and for a bounded time."""
    tool = "/opt/kafka/bin/kafka-configs.sh --bootstrap-server localhost:9092 --describe --topic "
    day_ms = 24 * 60 * 60 * 1000
    for topic, days in [
        ("speech.audio.ingress", 1),
        ("speech.asr.text", 1),
        ("speech.audio.ingress.dlq", 7),
    ]:
        answer = stack.container("kafka").exec_run([*tool.split(), topic])
        assert answer.exit_code == 0
        told = answer.output.decode()
        assert "max.message.bytes=2097152 " in told
        assert f"retention.ms={days * day_ms} " in told


def test_what_is_published_is_published_on_loopback(stack):
    """The development ports are reachable from this machine alone."""
    published = {
        (binding["HostIp"], int(binding["HostPort"]))
        for each in stack.containers().values()
        for bindings in each.ports.values()
        for binding in bindings or []
    }
    assert published == {("127.0.0.1", port) for port in stack.ports.values()}


def test_the_page_and_its_gateway_are_one_origin(stack, speech):
    """The page has its headers, nothing else of its folder is served, and the text comes back."""
    origin = f"localhost:{stack.ports['PAGE_HOST_PORT']}"
    with urlopen(f"http://{origin}/") as page:
        headers, text = page.headers, page.read().decode()
    assert '<main data-state="idle">' in text
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"http://{origin}/package.json")
    done = invoke(app, speech, "--fast", "--results", "--url", f"ws://{origin}/ws/audio")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Go forward 10 meters.")


@pytest.fixture
def largest(tmp_path: Path, speech: Path) -> Path:
    """Return speech, repeated to the largest utterance that the gateway takes (49 s)."""
    pcm = speech.read_bytes()
    path = tmp_path / "largest.raw"
    path.write_bytes((pcm * (MAX_AUDIO_BYTES // len(pcm) + 1))[:MAX_AUDIO_BYTES])
    return path


@pytest.mark.full
def test_ten_clients_with_the_largest_utterances_fit(stack, largest):
    """As many as the gateway takes by default; about two minutes of recognising."""
    are_transcribed(stack, [largest] * 10)


def test_two_clients_with_the_largest_utterances_fit(stack, largest):
    """As many as there are processes that recognise."""
    are_transcribed(stack, [largest] * 2)


def are_transcribed(stack, files: list[Path]) -> None:
    """Check that all are accepted and get their texts, and that no container nears a limit."""
    with peaks(stack) as peak:
        ids = stack.speak(*files)
        traces = [stack.transcribed(each, ALL_TEXTS_SECONDS) for each in ids]
    print("peaks, as shares of the limits:", peak)  # noqa: T201  # seen with -rP
    texts = [result["text"] for found in traces for result in found["results"]]
    assert len(set(ids)) == len(files)
    assert [text.count("meters") > 10 for text in texts] == [True] * len(files)
    assert {what: share for what, share in peak.items() if share >= MOST_OF_A_LIMIT} == {}
    assert {each.attrs["State"]["OOMKilled"] for each in stack.containers().values()} == {False}


@contextmanager
def peaks(stack) -> Iterator[dict[str, float]]:
    """Sample memory and processes meanwhile; yield the largest shares of the containers' limits."""
    peak: dict[str, float] = {}
    over = Event()
    running = stack.containers()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            for service, each in running.items():
                for what, share in shares(each).items():
                    peak[f"{service} {what}"] = max(share, peak.get(f"{service} {what}", 0))

    sampler = Thread(target=sample)
    sampler.start()
    try:
        yield peak
    finally:
        over.set()
        sampler.join()
    assert set(peak) == {
        f"{service} {what}" for service in running for what in ("memory", "processes")
    }
    # The gateway is one process: the kernel knows its peak without sampling.
    gateway = "gateway-service memory"
    peak[gateway] = max(stack.python("gateway-service", PEAK), peak[gateway])


def shares(container) -> dict[str, float]:
    """Return how much of its limits a container uses."""
    told = container.client.api.stats(container.id, stream=False, one_shot=True)
    memory = told["memory_stats"]
    # As `docker stats` counts: without the files that the kernel would give up.
    files = memory["stats"].get("inactive_file", memory["stats"].get("total_inactive_file"))
    return {
        "memory": (memory["usage"] - files) / memory["limit"],
        "processes": told["pids_stats"]["current"] / container.attrs["HostConfig"]["PidsLimit"],
    }
