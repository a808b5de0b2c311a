"""Clients are let go of on a thread of their own, and by nobody else."""

import threading

from speech_lib.kafka.producing.disposal import Disposal


class Client:
    """Tells which thread lets go of it, and may hold that thread up."""

    def __init__(self) -> None:
        self.may_go, self.going, self.gone_on = threading.Event(), threading.Event(), []

    def handle(self) -> "Handle":
        return Handle(self)


class Handle:
    def __init__(self, client: Client) -> None:
        self._client = client

    def __del__(self) -> None:
        self._client.gone_on.append(threading.current_thread().name)
        self._client.going.set()
        self._client.may_go.wait(30)


def test_letting_go_holds_nobody_up():
    """`take` and `close` return while the client's end is waited for on the other thread."""
    client, disposal = Client(), Disposal()
    disposal.take(client.handle())
    disposal.close()
    assert client.going.wait(10)
    client.may_go.set()
    assert client.gone_on == ["kafka-disposal"]


def test_a_client_that_is_still_in_use_is_waited_for():
    """Whoever calls it would otherwise be the last to hold it, and be held up."""
    client, disposal = Client(), Disposal()
    client.may_go.set()
    in_use = client.handle()
    disposal.take(in_use)
    assert not client.going.wait(0.3)
    del in_use
    assert client.going.wait(10)
    assert client.gone_on == ["kafka-disposal"]
    disposal.close()
