"""What must not get out: secrets, addresses, paths, audio and texts, searched for by canaries.

Services run as processes of their own, with a canary in every place that holds something private,
while everything fails that can be made to fail. The canaries are then searched for, also in other
forms (hex, base64, `repr`, escaped), in all that was written to stdout and stderr (that of worker
processes too), in every page of the operations port and in every byte that clients were sent.
"""

import contextlib
import json
import os
import secrets
import signal
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest
import trustme
from confluent_kafka import Producer
from speech_gateway import wav
from speech_gateway.handshake import PATH
from speech_gateway.testing import RawClient, raw_client, request
from speech_lib.events import AudioInput, AudioInputEvent, codec
from speech_lib.kafka.registry import subject_of
from speech_lib.testing.mock_cluster import MockCluster
from speech_lib.testing.registry_server import RegistryServer
from speech_lib.testing.schema_store import RegistryError, SchemaStore
from speech_tools import stack
from speech_tools.protocol import audio
from support.canaries import Canary, Heard, canary
from websockets.frames import Frame, Opcode

pytestmark = [pytest.mark.security, pytest.mark.timeout(90), pytest.mark.anyio]

TOPICS = ("speech.audio.ingress", "speech.asr.text", "speech.audio.ingress.dlq")
MODULES = {"gateway": "speech_gateway", "asr": "speech_asr"}
LEVELS: Mapping[str, Mapping[str, str]] = {
    "production": {"LOG_LEVEL": "INFO"},
    "development": {"ENVIRONMENT": "development", "LOG_LEVEL": "DEBUG"},
}
SAID = audio.load(Path(__file__).parents[2] / "samples" / "go-forward-ten-meters.raw").pcm
WORDS = ("go forward", "forward ten", "ten meters")
"""What the recogniser hears in it."""
DONE = Frame(Opcode.TEXT, b'{"event": "done"}')
PRODUCE = 0
TOPIC_AUTHORIZATION_FAILED = 29
INVALID_RECORD = 87
ANSWERS = "what clients were sent"

every_level = pytest.mark.parametrize("level", LEVELS)

SASL_USER, SASL_PASSWORD, FOLDER, FILE = map(
    canary, ("sasl-user", "sasl-password", "folder", "file")
)
HOST, VARIABLE = canary("host"), canary("variable")
REGISTRY_USER, REGISTRY_PASSWORD, REGISTRY_ANSWER, REGISTRY_ID = map(
    canary, ("registry-user", "registry-password", "registry-answer", "registry-id")
)
SERVICES_OWN = (
    *(SASL_USER, SASL_PASSWORD, FOLDER, FILE, HOST, VARIABLE),
    *(REGISTRY_USER, REGISTRY_PASSWORD, REGISTRY_ANSWER, REGISTRY_ID),
)
CLIENTS, RECORDS = canary("client"), canary("record")
PCM = secrets.token_bytes(12)
SPEECH = PCM * 1_000
OTHERS = (CLIENTS, RECORDS, PCM)
"""What clients send, and whoever else may write to a topic."""
AUDIO = Frame(Opcode.BINARY, SPEECH)


class HostileStore(SchemaStore):
    """Refuses with a canary while `failing`; gives one for an id of the topic `crooked`."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = True
        self.crooked = ""

    def register(self, subject: str, text: object) -> int:
        """Answer as no registry should."""
        if self.failing:
            raise RegistryError(500, 50001, REGISTRY_ANSWER)
        if subject == subject_of(self.crooked):
            return REGISTRY_ID
        return super().register(subject, text)


class HostileRegistry(RegistryServer):
    """A registry with such a store, and with a user and a password in its URL."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self._server.store = HostileStore()

    @property
    def secret_url(self) -> str:
        return f"http://{REGISTRY_USER}:{REGISTRY_PASSWORD}@127.0.0.1:{self.port}/"


@dataclass
class Service:
    """A running service, and all that was heard of it."""

    process: stack.Process
    log: Path
    heard: Heard
    own: tuple[str, ...]
    ops_port: int
    port: int | None

    def look(self) -> None:
        """Read every page of the operations port, and one that is not there."""
        for page in ("/livez", "/readyz", "/metrics", f"/{CLIENTS}"):
            connection = HTTPConnection("127.0.0.1", self.ops_port, timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", page, headers={"X-Canary": CLIENTS})
                answer = connection.getresponse()
                self.heard.add(page, str(answer.headers).encode() + answer.read())

    async def meet(self, head: bytes, *frames: Frame | bytes) -> bytes:
        """Send a request, and frames if it is admitted; return all that was answered."""
        assert self.port
        async with raw_client(self.port, head, upgrade=False) as client:
            answer = await head_of(client)
            if b" 101 " in answer:
                client.send(*frames)
                answer += b"".join([frame.data async for frame in frames_of(client)])
            else:
                answer += await client.read_rest()
        self.heard.add(ANSWERS, answer)
        return answer

    def leaks(self, *more: Canary) -> list[tuple[str, Canary]]:
        """Stop the service; return what of its own is anywhere, and what else is where it is not.

        A client may be sent what it has sent itself: a close frame is answered with the same.
        """
        self.look()
        assert self.process.stop() == 0
        self.heard.add("log", written(self.log))
        return self.heard.leaks(self.own) + self.heard.leaks(more, but=ANSWERS)


def written(log: Path) -> bytes:
    """Return all that a process has written, as it stands there and as a reader of JSON sees it."""
    lines = log.read_bytes().splitlines()
    read = [json.dumps(json.loads(line), ensure_ascii=False).encode() for line in lines]
    return b"\n".join([*lines, *read])


async def head_of(client: RawClient) -> bytes:
    """Return the head of an answer; there is none where the request was no HTTP."""
    with contextlib.suppress(EOFError, ConnectionError):
        return (await client.read_head()).encode()
    return b""


async def frames_of(client: RawClient) -> AsyncIterator[Frame]:
    """Yield what the gateway sends until it closes, in whatever way."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            frame = await client.read_frame()
            yield frame
            if frame.opcode is Opcode.CLOSE:
                break


@pytest.fixture
def broker() -> Iterator[MockCluster]:
    with MockCluster() as broker:
        for topic in TOPICS:
            broker.create_topic(topic)
        yield broker


@pytest.fixture
def launch(broker, registry, tmp_path):
    """Return `launch(name, level, **settings)`, which starts a process."""
    with ExitStack() as processes:

        def launch(name: str, level: str, **settings: str) -> stack.Process:
            env = {
                "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
                "SCHEMA_REGISTRY_URL": registry.secret_url,
                "PORT": "0",
                "OPS_PORT": "0",
                "ASR_WORKERS": "1",
                "ASR_ENGINE": "pocketsphinx",
                "DELIVERY_TIMEOUT_SECONDS": "3",
                **stack.MANY_FROM_ONE_ADDRESS,
                "SOMETHING_PRIVATE": VARIABLE,
                **LEVELS[level],
                **settings,
            }
            process = stack.Process(f"{name}-{uuid.uuid4()}", MODULES[name], env, tmp_path)
            return processes.enter_context(process)

        yield launch


@pytest.fixture
def start(launch, broker, registry, tmp_path):
    """Return `start(name, level, **settings)`, which starts a service that listens."""
    own = (*SERVICES_OWN, broker.bootstrap_servers, f"127.0.0.1:{registry.port}")

    def start(name: str, level: str, **settings: str) -> Service:
        process = launch(name, level, **settings)
        told = process.wait_for(event="listening")
        log = tmp_path / f"{process.name}.log"
        return Service(process, log, Heard(), own, told["ops_port"], told.get("port"))

    return start


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    with HostileRegistry() as registry:
        yield registry


def authority(folder: Path) -> Path:
    """Write the certificate of an authority that has signed nothing, and return where it is."""
    path = folder / "authority.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


@pytest.fixture
def sasl(tmp_path) -> dict[str, str]:
    """Return the settings of a broker with users; the folder of the password is a canary."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    password = folder / "password"
    password.write_text(SASL_PASSWORD)
    return {
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": SASL_USER,
        "KAFKA_SASL_PASSWORD_FILE": str(password),
    }


@pytest.fixture
def tls(tmp_path, sasl) -> dict[str, str]:
    """Return the same with TLS; the authority's certificate is in that folder too."""
    certificate = authority(tmp_path / FOLDER)
    return {
        **sasl,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SSL_CA_LOCATION": str(certificate),
    }


@every_level
async def test_waiting_for_a_broker_tells_nothing_of_it(start, sasl, tls, level):
    """It has no TLS, or no users, or is not there at all; each of these is tried for ever."""
    nowhere = {"KAFKA_BOOTSTRAP_SERVERS": f"{HOST}.invalid:9092"}
    services = [
        start("gateway", level, **tls),
        start("gateway", level, **sasl),
        start("gateway", level, **nowhere),
        start("asr", level, **tls),
    ]
    for service in services:
        service.process.wait_for(event="waiting", what="broker")
        if service.port:
            assert b"not_ready" in await service.meet(request(headers=[("Cookie", CLIENTS)]))
    assert [leak for service in services for leak in service.leaks(*OTHERS)] == []


@every_level
def test_a_certificate_that_is_none_is_not_quoted(launch, tls, tmp_path, level):
    """The service ends, and says neither where the file is nor what is in it."""
    Path(tls["KAFKA_SSL_CA_LOCATION"]).write_text(FILE)
    process = launch("gateway", level, **tls)
    assert process.wait(20) > 0
    process.stop()
    last_words = (tmp_path / f"{process.name}.log").read_bytes()
    assert last_words
    assert Heard({"log": last_words}).leaks(SERVICES_OWN) == []


@every_level
async def test_a_defect_tells_nothing_of_what_it_met(start, registry, level):
    """The registry answers with what is no id: every utterance fails, none is told why."""
    registry.store.crooked = TOPICS[0]
    gateway = start("gateway", level)
    gateway.process.wait_for(event="waiting", what="schema")
    gateway.look()
    registry.store.failing = False
    gateway.process.wait_for(event="ready")
    assert b'"code":"internal_error"' in await gateway.meet(request(), AUDIO, DONE)
    gateway.process.wait_for(event="publishing failed")
    assert gateway.leaks(*OTHERS) == []


def hostile_sessions() -> Iterator[tuple[bytes, tuple[Frame | bytes, ...], bytes]]:
    """Yield requests and frames with canaries, and what each is answered with."""
    private = CLIENTS.encode()
    kept = (("Origin", f"https://{CLIENTS}.example"), ("Cookie", CLIENTS), ("User-Agent", CLIENTS))
    head = request(f"{PATH}?token={CLIENTS}", headers=kept)
    yield request(f"/{CLIENTS}"), (), b"not_found"
    yield request(method=CLIENTS), (), b"method_not_allowed"
    yield request(headers=kept, without=frozenset({"Upgrade"})), (), b"upgrade_required"
    yield request(f"{PATH}?language={CLIENTS}"), (), b"invalid_language"
    yield request(version=CLIENTS), (), b""
    key = [("Sec-WebSocket-Key", CLIENTS)]
    yield request(headers=key, without=frozenset({"Sec-WebSocket-Key"})), (), b"400 Bad Request"
    yield head, (AUDIO, Frame(Opcode.TEXT, private)), b"invalid_message"
    yield head, (AUDIO, Frame(Opcode.TEXT, b"\xff" + private)), b"invalid start byte"
    yield head, (AUDIO, Frame(Opcode.BINARY, SPEECH * 6)), b"exceeds limit"
    yield head, (Frame(Opcode.BINARY, b"RIFF\0\0\0\0WAVE" + SPEECH),), b"unsupported_audio"
    yield head, (AUDIO, b"\xf2\x8c" + SPEECH), b"\x03\xea"
    yield head, (AUDIO, Frame(Opcode.CLOSE, b"\x03\xe8" + private)), private
    yield head, (AUDIO, *[Frame(Opcode.PING, PCM)] * 50), b"rate_limited"
    yield head, (AUDIO, *[Frame(Opcode.BINARY, SPEECH * 5)] * 27), b"audio_too_long"


@every_level
async def test_hostile_clients_leave_nothing_behind(start, broker, registry, level):
    """What they send is in no line and on no page; and they learn nothing of the inside."""
    registry.store.failing = False
    gateway = start("gateway", level)
    gateway.process.wait_for(event="ready")
    for head, frames, expected in hostile_sessions():
        assert expected in await gateway.meet(head, *frames)
    assert b"accepted" in await gateway.meet(request(), AUDIO, DONE)
    broker.set_broker_down()
    assert b"broker_unavailable" in await gateway.meet(request(), AUDIO, DONE)
    gateway.process.wait_for(event="broker_lost")
    gateway.look()
    broker.set_broker_up()
    gateway.process.wait_for(event="broker_back")
    broker.push_request_errors(PRODUCE, TOPIC_AUTHORIZATION_FAILED)
    assert b"rejected_by_broker" in await gateway.meet(request(), AUDIO, DONE)
    assert gateway.leaks(*OTHERS) == []


def put(broker: MockCluster, value: bytes) -> None:
    """Write a record to the topic of the utterances, as whoever may write there could."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    producer.produce(TOPICS[0], value, headers=[("private", RECORDS.encode())])
    assert producer.flush(20) == 0


def utterance(pcm: bytes, schema_id: int = 1) -> bytes:
    """Return the value of a record with these samples; the registry's first schema is its own."""
    payload = AudioInput(audio_bytes=wav.wrap(pcm), sample_rate_hz=wav.SAMPLE_RATE_HZ)
    event = AudioInputEvent.new(
        correlation_id=str(uuid.uuid4()), source_service="gateway", payload=payload
    )
    return codec.encode(event, schema_id)


def kill_worker(process: stack.Process) -> None:
    """Kill the process that recognises, as a machine that is short of memory does."""
    pid = process._process.pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)


@every_level
def test_the_recogniser_tells_nothing_of_what_it_hears(start, broker, registry, level):
    """Nor do its workers; whether they hear it, are killed over it, or cannot store the text."""
    registry.store.failing = False
    asr = start("asr", level)
    asr.process.wait_for(event="ready")
    put(broker, utterance(SAID))
    asr.process.wait_for(event="utterance", outcome="recognised")
    put(broker, RECORDS.encode())
    asr.process.wait_for(event="utterance", reason="not_avro")
    put(broker, utterance(SPEECH)[:-4])
    asr.process.wait_for(event="utterance", reason="not_avro")
    kill_worker(asr.process)
    put(broker, utterance(SPEECH))
    asr.process.wait_for(event="worker_replaced")
    asr.process.wait_for(event="utterance")
    asr.process.signal(signal.SIGSTOP)  # so that the next answer but one is its own
    put(broker, utterance(SAID))
    broker.push_request_errors(PRODUCE, TOPIC_AUTHORIZATION_FAILED, INVALID_RECORD)
    asr.process.signal(signal.SIGCONT)
    asr.process.wait_for(event="not_stored", reason="TOPIC_AUTHORIZATION_FAILED")
    asr.process.wait_for(event="utterance", reason="result_refused")
    assert asr.leaks(*OTHERS, *WORDS) == []


@every_level
def test_a_defect_of_the_recogniser_tells_nothing_of_what_it_heard(start, broker, registry, level):
    """The text cannot be encoded: what is logged of that does not quote it."""
    registry.store.failing = False
    registry.store.crooked = TOPICS[1]
    asr = start("asr", level)
    asr.process.wait_for(event="ready")
    put(broker, utterance(SAID))
    asr.process.wait_for(event="unexpected_error")
    asr.process.wait_for(event="utterance", reason="internal_error")
    assert asr.leaks(*WORDS) == []
