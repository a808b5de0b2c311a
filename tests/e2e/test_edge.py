"""The profile `edge`: TLS and an API key in front of the gateway, and nothing beside it."""

import json
import os
import resource
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPSConnection
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import trustme
from support.compose import some_prefix
from support.waiting import until
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

KEY, OLD_KEY = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
WRONG_KEY = secrets.token_urlsafe(32)
ORIGIN = "https://app.example"
V1 = "speech-ingress.v1"
ANSWER_SECONDS = 15
OPENERS, CUT_SECONDS = 4, 15
TRUSTING = ssl._create_unverified_context()  # noqa: S323 - whom it attacks is not what is tested
LINES_A_SECOND = 10
GATEWAY_PORT = 8000
ESTABLISHED, TIME_WAIT, CLOSE_WAIT = "01", "06", "08"  # of /proc/net/tcp
LET_GO_SECONDS = 60
ROOT_CERTIFICATE = "/data/caddy/pki/authorities/local/root.crt"

# Speaks WebSocket to the edge by hand, from a container of its own: prints the status line.
HANDSHAKE = """
import json, socket, ssl, sys
key, origin = sys.argv[1:]
tls = ssl._create_unverified_context()  # whom it speaks to is not what is tested here
plain = socket.create_connection(("edge", 8443), 10)
with tls.wrap_socket(plain, server_hostname="localhost") as s:
    s.sendall((
        "GET /ws/audio HTTP/1.1\\r\\nHost: edge\\r\\n"
        "Connection: Upgrade\\r\\nUpgrade: websocket\\r\\n"
        "Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n"
        f"Origin: {origin}\\r\\nX-API-Key: {key}\\r\\n\\r\\n"
    ).encode())
    print(json.dumps(s.makefile("rb").readline().decode().strip()))
"""
# Speaks to the gateway past the edge, twice at once, for others than itself: prints the answers.
FORGED = """
import json, socket, sys
said, held = [], []
for address in ("192.0.2.1", "198.51.100.1"):
    held.append(socket.create_connection(("gateway-service", 8000), 10))
    held[-1].sendall((
        "GET /ws/audio HTTP/1.1\\r\\nHost: gateway\\r\\n"
        "Connection: Upgrade\\r\\nUpgrade: websocket\\r\\n"
        "Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n"
        f"Origin: {sys.argv[1]}\\r\\nX-Forwarded-For: {address}\\r\\n\\r\\n"
    ).encode())
    said.append(held[-1].makefile("rb").readline().decode().split()[1])
print(json.dumps(said))
"""
REACH = """
import json, socket, sys
def reach(target):
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError:
        return False
    return True
print(json.dumps([target for target in sys.argv[1:] if reach(target)]))
"""
# Stands in for the gateway and prints the requests that it gets: the one that it refuses, and the
# edge's second one, when no other gateway takes the client.
PRINT_REQUEST = """
import socket
with socket.create_server(("", 8000)) as server:
    print("listening", flush=True)
    for status in (b"503 Service Unavailable", b"403 Forbidden"):
        client, _ = server.accept()
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            head += client.recv(65536)
        print(head.decode(), flush=True)
        client.sendall(b"HTTP/1.1 " + status + b"\\r\\nContent-Length: 0\\r\\n\\r\\n")
        client.close()
"""


@dataclass(frozen=True)
class Edge:
    """The edge of a stack, as clients reach it."""

    stack: Any
    trust: ssl.SSLContext

    @property
    def port(self) -> int:
        """Where it is published."""
        return self.stack.ports["EDGE_PORT"]

    @property
    def address(self) -> str:
        """The container's own: Docker's proxy on loopback buffers, and gives way first."""
        networks = self.stack.container("edge").attrs["NetworkSettings"]["Networks"]
        return networks[f"{self.stack.name}_edge"]["IPAddress"]

    def connect(self, **options: Any) -> ClientConnection:
        """Connect as a page of the allowed origin, or as `options` say."""
        return connect(
            f"wss://localhost:{self.port}/ws/audio",
            **{"ssl": self.trust, "origin": ORIGIN, "open_timeout": ANSWER_SECONDS, **options},
        )

    def refusal(self, **options: Any) -> tuple[int, str]:
        """Return the status and the code with which a connection is refused."""
        with pytest.raises(InvalidStatus) as refused, self.connect(**options):
            pass
        answer = refused.value.response
        return answer.status_code, json.loads(answer.body)["code"]

    def get(self, target: str, **headers: str) -> tuple[int, str, str]:
        """Send a GET; return the status, the code of the refusal, and the Server header."""
        https = HTTPSConnection("localhost", self.port, timeout=ANSWER_SECONDS, context=self.trust)
        try:
            https.request("GET", target, headers=headers)
            answer = https.getresponse()
            return answer.status, json.load(answer)["code"], answer.getheader("Server", "")
        finally:
            https.close()


def with_key(key: str = KEY) -> dict[str, Any]:
    return {"additional_headers": {"X-API-Key": key}}


@pytest.fixture(scope="module")
def edge(bring_up) -> Edge:
    """Return the edge before a gateway that takes one client from an address."""
    prefix = some_prefix()
    stack = bring_up(
        *("edge", "gateway-service"),
        ingress_prefix=prefix,
        files=("docker-compose.yml",),
        published=("EDGE_PORT",),
        settings={
            "COMPOSE_PROFILES": "edge",
            "EDGE_ADDRESS": "127.0.0.1",
            "EDGE_API_KEY": f"{KEY},{OLD_KEY}",
            "ORIGIN_ALLOWLIST": ORIGIN,
            "TRUSTED_PROXIES": f"{prefix}.2",
            "MAX_CONNECTIONS_PER_ADDRESS": "1",
            "MAX_SESSION_SECONDS": "300",  # longer than an attack takes on a busy machine
        },
    )
    shown = stack.container("edge").exec_run(["cat", ROOT_CERTIFICATE])
    assert shown.exit_code == 0
    return Edge(stack, ssl.create_default_context(cadata=shown.output.decode()))


@pytest.mark.parametrize("key", [KEY, OLD_KEY], ids=["new", "old"])
def test_who_has_a_key_speaks_over_tls(edge, speech, key):
    """With a key in the header an utterance is accepted, compression is not negotiated."""
    with edge.connect(**with_key(key)) as client:
        assert json.loads(client.recv(ANSWER_SECONDS))["status"] == "connected"
        assert client.protocol.extensions == []
        client.send(speech.read_bytes()[:64_000])
        client.send('{"event":"done"}')
        accepted = json.loads(client.recv(ANSWER_SECONDS))
    assert (accepted["status"], accepted["audio_bytes"]) == ("accepted", 64_000)


@pytest.mark.parametrize(
    "offered",
    [[V1, f"api-key.{KEY}"], [f"api-key.{KEY}", V1], ["chat", f"api-key.{OLD_KEY}", V1]],
    ids=["last", "first", "between"],
)
def test_a_browser_brings_the_key_as_a_subprotocol(edge, offered):
    """The key stands beside the gateway's subprotocol, which alone is negotiated."""
    with edge.connect(subprotocols=offered) as client:
        assert client.subprotocol == V1
        assert json.loads(client.recv(ANSWER_SECONDS))["protocol"] == V1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (401, "api_key_missing")),
        ({"subprotocols": [V1]}, (401, "api_key_missing")),
        ({"subprotocols": [V1, KEY]}, (401, "api_key_missing")),
        (with_key(WRONG_KEY), (403, "api_key_refused")),
        (with_key(""), (403, "api_key_refused")),
        (with_key("*"), (403, "api_key_refused")),
        (with_key(f"{KEY}|{OLD_KEY}"), (403, "api_key_refused")),
        (with_key(f"{KEY},{OLD_KEY}"), (403, "api_key_refused")),
        (with_key(KEY[:-1]), (403, "api_key_refused")),
        (with_key(f"{KEY}x"), (403, "api_key_refused")),
        (with_key(KEY.swapcase()), (403, "api_key_refused")),
        ({"subprotocols": [V1, f"api-key.{WRONG_KEY}"]}, (403, "api_key_refused")),
        ({"subprotocols": [V1, f"api-key.{KEY}x"]}, (403, "api_key_refused")),
        ({"subprotocols": [V1, f"x-api-key.{KEY}"]}, (401, "api_key_missing")),
    ],
)
def test_who_has_none_is_told_so(edge, options, expected):
    """Without a key 401, with another one 403, and both say which it is."""
    assert edge.refusal(**options) == expected


def test_the_gateways_refusals_come_through(edge):
    """With a key, other origins and clients that send none are refused by the gateway."""
    refused = (403, "origin_not_allowed")
    assert edge.refusal(**with_key(), origin="https://evil.example") == refused
    assert edge.refusal(**with_key(), origin=None) == refused


@pytest.mark.parametrize(
    "named", ["Origin", "keep-alive, origin", "close, X-Forwarded-For, Origin"]
)
def test_what_connection_names_is_passed_on_all_the_same(edge, named):
    """Else a page's client could take off its `Origin`, and pass for one that has none."""
    headers = [("X-API-Key", KEY), ("Connection", named)]
    with edge.connect(additional_headers=headers) as client:
        assert json.loads(client.recv(ANSWER_SECONDS))["status"] == "connected"


@pytest.mark.parametrize(
    "target",
    ["/", "/metrics", "/livez", "/readyz", "/ws", "/ws/audio/", "/ws/audio/x", "/ws/audio/../x"],
)
def test_no_other_path_is_passed_on(edge, target):
    """With a key too, there is `/ws/audio` and nothing else; no answer names the server."""
    assert edge.get(target, **{"X-API-Key": KEY}) == (404, "not_found", "")


@pytest.mark.parametrize("target", ["/WS/AUDIO", "//ws/audio", "/ws/./audio", "/ws%2faudio"])
def test_other_spellings_of_the_path_reach_no_more(edge, target):
    """What Caddy takes for the path, the gateway still judges by its letters."""
    assert edge.get(target, **{"X-API-Key": KEY}) == (404, "not_found", "")


def test_any_host_header_gets_the_same_answers(edge):
    """There is no second site behind another name."""
    assert edge.get("/ws/audio", Host="other.example") == (401, "api_key_missing", "")


def test_without_tls_nothing_is_said(edge):
    """Plain HTTP on the port gets a bare close, or 400, with the key too."""
    asked = f"GET /ws/audio HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", edge.port), ANSWER_SECONDS) as plain:
        plain.sendall(asked.encode())
        said = plain.makefile("rb").read()
    assert not said or said.startswith(b"HTTP/1.0 400 ")


@pytest.mark.parametrize("said", [b"", b"GET /ws/audio HTTP/1.1\r\nHost: localhost\r\n"])
def test_who_does_not_finish_is_cut(edge, said):
    """Without a TLS hello, or without the end of the request, it is over in 5 s."""
    began = time.monotonic()
    with ExitStack() as opened:
        client = opened.enter_context(socket.create_connection(("localhost", edge.port), 10))
        if said:
            client = edge.trust.wrap_socket(client, server_hostname="localhost")
            opened.enter_context(client).sendall(said)
        assert client.recv(1024) == b""
    assert 3 < time.monotonic() - began < 10


def without_a_body(plain: socket.socket) -> socket.socket:
    """Ask without a key, and send no body."""
    client = TRUSTING.wrap_socket(plain, server_hostname="localhost")
    head = "POST /ws/audio HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
    client.sendall(f"{head}X-Pad: {'a' * 7_000}\r\n\r\n".encode())
    return client


def without_a_hello(plain: socket.socket) -> socket.socket:
    """Send the first byte of TLS."""
    plain.sendall(b"\x16")
    return plain


Begin = Callable[[socket.socket], socket.socket]


def is_cut(client: socket.socket, by: float) -> bool:
    """Wait until the other side has closed a connection; False where it has not by then."""
    try:
        client.settimeout(max(0.001, by - time.monotonic()))
        while client.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def held_open(address: str, begin: Begin, count: int) -> int:
    """Open connections, and hold them; return how many are open 15 s after the last."""
    with ExitStack() as closing:
        held = []
        for _ in range(count):
            with suppress(OSError):  # refused is as well as cut
                plain = socket.create_connection((address, 8443), CUT_SECONDS)
                held.append(closing.enter_context(begin(closing.enter_context(plain))))
        by = time.monotonic() + CUT_SECONDS
        return sum(not is_cut(each, by) for each in held)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process have as many files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    ("begin", "count"),
    [
        pytest.param(without_a_body, 4_000, id="no body"),
        pytest.param(without_a_body, 8_000, id="no body, many", marks=pytest.mark.full),
        pytest.param(without_a_hello, 12_000, id="no hello, many", marks=pytest.mark.full),
    ],
)
def test_thousands_without_a_key_take_nothing_from_who_speaks(edge, begin, count):
    """None is open after 15 s, the edge lives, its log stays small, and the speaker is accepted."""
    container, began = edge.stack.container("edge"), time.time()
    with edge.connect(**with_key()) as client, ThreadPoolExecutor(OPENERS) as openers:
        client.recv(ANSWER_SECONDS)
        held = (held_open, edge.address, begin, count // OPENERS)
        attacks = [openers.submit(*held) for _ in range(OPENERS)]
        chunks = 0
        while wait(attacks, timeout=0.2).not_done:
            client.send(bytes(640))
            chunks += 1
        client.send('{"event":"done"}')
        accepted = json.loads(client.recv(ANSWER_SECONDS))
    assert [each.result() for each in attacks] == [0] * OPENERS
    assert (accepted["status"], accepted["audio_bytes"]) == ("accepted", 640 * chunks)
    container.reload()
    assert (container.attrs["RestartCount"], container.attrs["State"]["OOMKilled"]) == (0, False)
    lines = container.logs(since=int(began)).decode().count('"msg":"handled request"')
    assert lines <= LINES_A_SECOND * (time.time() - began + 2)
    memory = container.stats(stream=False)["memory_stats"]
    most = memory.get("max_usage", memory["usage"]) >> 20  # of cgroup v2 Docker tells no maximum
    print(f"{count} connections in {time.time() - began:.0f} s: {most} MiB, {lines} lines")  # noqa: T201  # with -rP


PING = Frame(Opcode.PING, bytes(125)).serialize(mask=True)
SPOKEN = Frame(Opcode.BINARY, bytes(640)).serialize(mask=True)
PINGS, PINGS_A_SECOND, PINGS_AN_UTTERANCE = 420, 18, 100
"""Just below what the gateway cuts; their pongs are more than the client and the edge can hold."""


def unread(edge: Edge, opened: ExitStack) -> None:
    """Open a session with the least room to receive, and have more sent than fits into it."""
    plain = opened.enter_context(socket.socket())
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    plain.connect((edge.address, 8443))
    client = opened.enter_context(TRUSTING.wrap_socket(plain, server_hostname="localhost"))
    head = (
        "GET /ws/audio HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    client.sendall(f"{head}Origin: {ORIGIN}\r\nX-API-Key: {KEY}\r\n\r\n".encode())
    for number in range(PINGS):
        client.sendall(PING if number % PINGS_AN_UTTERANCE else PING + SPOKEN)
        time.sleep(1 / PINGS_A_SECOND)


def behind(edge: Edge) -> set[str]:
    """Return the states of the edge's connections to the gateway, as /proc/net/tcp has them."""
    table = edge.stack.container("edge").exec_run(["cat", "/proc/net/tcp", "/proc/net/tcp6"])
    rows = [line.split() for line in table.output.decode().splitlines()]
    return {row[3] for row in rows if row[2].endswith(f":{GATEWAY_PORT:04X}")} - {TIME_WAIT}


def test_the_limit_by_address_sees_the_client(edge):
    """Clients of one address share a slot, whatever they forward; another address has its own."""
    with edge.connect(**with_key()) as client:
        client.recv(ANSWER_SECONDS)
        full = (429, "too_many_connections_from_address")
        assert edge.refusal(**with_key()) == full
        forged = {"X-API-Key": KEY, "X-Forwarded-For": "192.0.2.1, 192.0.2.2"}
        assert edge.refusal(additional_headers=forged) == full
        status = edge.stack.run_on("edge", HANDSHAKE, KEY, ORIGIN)
        assert status == "HTTP/1.1 101 Switching Protocols"


def test_who_comes_past_the_edge_is_believed_nothing(edge):
    """A neighbour on `ingress` is one address, whatever it forwards: its second client is none."""
    assert edge.stack.run_on("ingress", FORGED, ORIGIN) == ["101", "429"]


@pytest.mark.parametrize("network", ["pipeline", "ingress"])
def test_the_host_has_no_address_on_the_inner_networks(edge, network):
    """So its users have no way to what listens there; nothing is sent to find out."""
    name = f"{edge.stack.name}_{network}"
    container = edge.stack.container("gateway-service")
    address = container.attrs["NetworkSettings"]["Networks"][name]["IPAddress"]
    (settings,) = edge.stack.client.networks.get(name).attrs["IPAM"]["Config"]
    with socket.socket(type=socket.SOCK_DGRAM) as probe, suppress(OSError):  # no way at all is well
        probe.connect((address, 8000))
        assert ip_address(probe.getsockname()[0]) not in ip_network(settings["Subnet"])


def test_only_the_edge_is_published(edge):
    """The gateway's own ports are not, and from the edge's network there is only the edge."""
    published = {
        service: [binding["HostPort"] for bound in each.ports.values() for binding in bound or []]
        for service, each in edge.stack.containers().items()
    }
    assert {service: ports for service, ports in published.items() if ports} == {
        "edge": [str(edge.port)]
    }
    # Not by their addresses: the way there would be the host, which has none to the inner networks.
    targets = [
        "gateway-service:8000",
        "gateway-service:8001",
        "kafka:9092",
        "edge:2020",
        "edge:2021",
    ]
    assert edge.stack.run_on("edge", REACH, "edge:8443", *targets) == ["edge:8443"]


def test_its_process_has_no_privileges(edge):
    """User 1000, no capabilities, none to be gained, a read-only root, bounded in all."""
    container = edge.stack.container("edge")
    lines = container.exec_run(["cat", "/proc/1/status"]).output.decode().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert status["Uid"] == status["Gid"] == ["1000"] * 4
    assert [status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [
        ["0" * 16]
    ] * 5
    assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
    host = container.attrs["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert set(host["Tmpfs"]) == {"/config", "/data", "/dev/mqueue"}
    assert [mount["Destination"] for mount in container.attrs["Mounts"] if mount["RW"]] == []
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (512 << 20, 512 << 20, 64)
    files = {"Name": "nofile", "Soft": 4_096, "Hard": 4_096}  # and so connections
    assert files in host["Ulimits"]


ENVIRONMENTS = """
cat /proc/1/environ
for each in $(cat /proc/1/task/1/children); do cat /proc/$each/environ; done
"""


def test_its_environment_holds_no_key(edge):
    """Neither that of Caddy, nor that of the shell which waits for it."""
    shown = edge.stack.container("edge").exec_run(["sh", "-c", ENVIRONMENTS])
    said = shown.output.decode()
    assert said.split("\0").count("EDGE_HOST=localhost") == 2
    assert [key for key in (KEY, OLD_KEY) if key in said] == []


@contextmanager
def in_place_of_the_gateway(stack: Any) -> Iterator[Any]:
    """Stop the gateway; a container under its name prints the requests that it gets."""
    image = stack.container("gateway-service").image.id
    assert stack.compose("stop", "gateway-service").returncode == 0
    double = stack.client.containers.create(image, ["python", "-c", PRINT_REQUEST])
    try:
        network = stack.client.networks.get(f"{stack.name}_ingress")
        network.connect(double, aliases=["gateway-service"])
        double.start()
        until(double.logs, seconds=ANSWER_SECONDS)
        yield double
    finally:
        double.remove(force=True)
        started = stack.compose("up", "--no-build", "--no-recreate", "--wait", "gateway-service")
        assert started.returncode == 0, started.stderr


def test_the_gateway_never_sees_the_key(edge):
    """What is passed on, also a second time, holds no key, one address, and of the offer ours."""
    headers = {"X-API-Key": KEY, "X-Forwarded-For": "192.0.2.1"}
    with in_place_of_the_gateway(edge.stack) as double:
        with pytest.raises(InvalidStatus):
            edge.connect(additional_headers=headers, subprotocols=[f"api-key.{OLD_KEY}", V1])
        double.wait(timeout=ANSWER_SECONDS)
        said = double.logs().decode()
    assert said.startswith("listening\n")
    requests = said.split("GET /ws/audio HTTP/1.1\r\n")[1:]
    assert [each for each in (KEY, OLD_KEY, "192.0.2.1") if each in said] == []
    for request in requests:
        fields = [line.partition(": ") for line in request.split("\r\n") if line.strip()]
        sent = {name.lower(): value for name, _, value in fields}
        assert (sent["sec-websocket-protocol"], sent["origin"]) == (V1, ORIGIN)
        assert sent["x-forwarded-for"].count(",") == 0
        assert "x-api-key" not in sent
    assert len(requests) == 2


def test_without_the_gateway_clients_are_told_to_try_again(edge):
    """A gateway that is away is 503 with a code, after the key was asked for."""
    stack = edge.stack
    assert stack.compose("stop", "gateway-service").returncode == 0
    try:
        assert edge.refusal(**with_key()) == (503, "gateway_unreachable")
        assert edge.refusal(**with_key(WRONG_KEY)) == (403, "api_key_refused")
    finally:
        started = stack.compose("up", "--no-build", "--no-recreate", "--wait", "gateway-service")
        assert started.returncode == 0, started.stderr


def logged_keys(stack: Any) -> list[str]:
    """Return the keys, right and wrong, that a container of the stack has logged."""
    said = stack.compose("logs", "--no-color").stdout
    assert '"msg":"handled request"' in said  # a line for each request
    return [key for key in (KEY, OLD_KEY, WRONG_KEY) if key in said]


def test_no_key_and_no_client_is_in_any_log(edge):
    """Neither a key that was let in, nor one that was not, nor anything else of the request."""
    with edge.connect(subprotocols=[V1, f"api-key.{KEY}"], user_agent_header="canary") as client:
        client.recv(ANSWER_SECONDS)
    edge.refusal(subprotocols=[V1, f"api-key.{WRONG_KEY}"], user_agent_header="canary")
    edge.get("/canary", **{"X-API-Key": OLD_KEY, "X-Forwarded-For": "192.0.2.1"})
    edge.get(f"/ws/audio?canary={WRONG_KEY}")
    assert logged_keys(edge.stack) == []
    said = edge.stack.compose("logs", "--no-color", "edge", "gateway-service").stdout
    assert [each for each in ("canary", "192.0.2.1", ORIGIN) if each in said] == []


NO_KEYS = (
    "EDGE_API_KEY: expected a key, or several separated by commas, each of 32 to 128 letters,"
    " digits, '-' or '_'"
)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"EDGE_API_KEY": f"{KEY}|.*"}, NO_KEYS),
        (
            {"EDGE_API_KEY_FILE": __file__},
            "EDGE_API_KEY, EDGE_API_KEY_FILE: expected one of the two, not both",
        ),
        (
            {"EDGE_TLS_CERT_FILE": __file__},
            "EDGE_TLS_CERT_FILE, EDGE_TLS_KEY_FILE: expected both or neither",
        ),
    ],
)
def test_it_does_not_start_without_what_it_needs(edge, wrong, said):
    """One line says what is expected; the exit code is 2. More in `tests/test_edge_start.py`."""
    stack = replace(edge.stack, settings=edge.stack.settings | wrong)
    service = json.loads(stack.compose("config", "--format", "json").stdout)["services"]["edge"]
    # By itself: a second one of the stack would want the same address.
    mounts = [f"{each['source']}:{each['target']}:ro" for each in service["volumes"]]
    once = {"environment": service["environment"], "volumes": mounts, "network_mode": "none"}
    done = stack.client.containers.create(service["image"], **once)
    try:
        done.start()
        ended = done.wait(timeout=ANSWER_SECONDS)["StatusCode"]
        assert (ended, done.logs().decode()) == (2, f"edge: {said}\n")
    finally:
        done.remove(force=True)


# What replaces the edge stands last, because a new edge has a new authority, which nobody trusts.


def test_an_operator_brings_a_certificate_and_the_key_in_files(edge, tmp_path):
    """With files in place of variables the edge serves that certificate and takes that key."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    tls_certificate, tls_key = tmp_path / "tls.crt", tmp_path / "tls.key"
    issued.cert_chain_pems[0].write_to_path(tls_certificate)
    issued.private_key_pem.write_to_path(tls_key)
    api_key = tmp_path / "api-key"
    api_key.write_text(f"{KEY}\n")
    if os.geteuid() == 0:  # as docs/security.md has it; else it is this user's
        os.chown(api_key, 1000, 1000)
        api_key.chmod(0o600)
    files = {
        "EDGE_API_KEY": "",
        "EDGE_API_KEY_FILE": str(api_key),
        "EDGE_TLS_CERT_FILE": str(tls_certificate),
        "EDGE_TLS_KEY_FILE": str(tls_key),
    }
    stack = replace(edge.stack, settings=edge.stack.settings | files)
    recreate(stack)
    try:
        own = Edge(stack, ssl.create_default_context())
        authority.configure_trust(own.trust)
        with own.connect(**with_key()) as client:
            assert json.loads(client.recv(ANSWER_SECONDS))["status"] == "connected"
        assert own.refusal(**with_key(OLD_KEY)) == (403, "api_key_refused")
        assert logged_keys(stack) == []
    finally:
        recreate(edge.stack)


def test_who_reads_nothing_is_let_go_after_the_gateway_has(edge):
    """The edge waits to write what the gateway said, and no longer than a session may last."""
    settings = {"MAX_SESSION_SECONDS": "10", "DELIVERY_TIMEOUT_SECONDS": "1"}
    recreate(replace(edge.stack, settings=edge.stack.settings | settings))
    try:
        with ExitStack() as opened:
            unread(edge, opened)
            assert behind(edge) == {ESTABLISHED}
            until(lambda: behind(edge), {CLOSE_WAIT}.__eq__, seconds=LET_GO_SECONDS, every=0.5)
            until(lambda: behind(edge), set().__eq__, seconds=LET_GO_SECONDS, every=0.5)
    finally:
        recreate(edge.stack)


def recreate(stack: Any) -> None:
    """Replace the edge by one with other settings, and wait until it is healthy."""
    done = stack.compose("up", "--no-build", "--no-deps", "--wait", "edge")
    assert done.returncode == 0, done.stderr + stack.logs("edge")
