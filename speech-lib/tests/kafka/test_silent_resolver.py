"""The promised times, where the name of the broker is asked for and nobody answers.

The test runs this file again, in namespaces of its own where the one name server is silent.
"""

import asyncio
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from speech_lib.errors import DeliveryError
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Record
from speech_lib.kafka.settings import KafkaSettings

DELIVERY_SECONDS = 2.0
CLOSE_SECONDS = 2.0
SENDS = 16
NAME_SERVER = "127.0.0.9"
_SET_FLAGS = 0x8914  # SIOCSIFFLAGS of netdevice(7)
_UP = 0x1
NAMESPACES = ["unshare", "--map-root-user", "--mount", "--net"]
SHELL = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'


def missing() -> str:
    """Return why namespaces cannot be had, nothing where they can."""
    if not shutil.which("unshare"):
        return "needs unshare of util-linux"
    command = [*NAMESPACES, "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return f"needs namespaces: {tried.stderr.strip()}" if tried.returncode else ""


@pytest.mark.pipeline
def test_the_promised_times_hold_where_names_do_not_resolve(tmp_path: Path):
    """Each is answered within the timeout and two seconds, `close` ends in its own time."""
    if reason := missing():
        pytest.skip(reason)
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(f"nameserver {NAME_SERVER}\n")
    run = subprocess.run(  # noqa: S603 - fixed words and paths
        [*NAMESPACES, "sh", "-c", SHELL, "sh", resolver, sys.executable, __file__],
        capture_output=True,
        text=True,
        timeout=55,
        check=True,
    )
    told = json.loads(run.stdout)
    assert told["look_up"] > DELIVERY_SECONDS + 2  # else nothing was held up
    assert told["answers"] == [["no", "_MSG_TIMED_OUT"]] * SENDS
    assert [
        took for took in told["took"] if not DELIVERY_SECONDS <= took < DELIVERY_SECONDS + 2
    ] == []
    assert told["close"] < CLOSE_SECONDS + 1


def be_silent() -> socket.socket:
    """Bring the loopback interface up, and take questions about names without an answer."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh", b"lo", _UP))
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((NAME_SERVER, 53))
    return listener


def look_up() -> float:
    began = time.monotonic()
    try:
        socket.getaddrinfo("kafka.example", 9092)
    except OSError:
        return time.monotonic() - began
    raise AssertionError("the name has an address")


async def send(producer: RecordProducer, after: float) -> tuple[list[str], float]:
    await asyncio.sleep(after)
    began = time.monotonic()
    try:
        await producer.send(Record("t", b"key", b"value"))
    except DeliveryError as error:
        return [error.stored, error.reason], time.monotonic() - began
    raise AssertionError("stored without a broker")


async def scenario() -> dict[str, object]:
    kafka = KafkaSettings(bootstrap_servers="kafka.example:9092")
    producer = RecordProducer(kafka, client_id="test", delivery_timeout=DELIVERY_SECONDS)
    sends = (send(producer, after) for after in range(SENDS))
    answers = await asyncio.gather(*sends)
    began = time.monotonic()
    await producer.close(CLOSE_SECONDS)
    return {
        "answers": [answer for answer, _ in answers],
        "took": [took for _, took in answers],
        "close": time.monotonic() - began,
    }


if __name__ == "__main__":
    with be_silent():
        print(json.dumps({"look_up": look_up(), **asyncio.run(scenario())}), flush=True)  # noqa: T201
        os._exit(0)  # a thread of librdkafka sits in a look-up, and would be waited for
