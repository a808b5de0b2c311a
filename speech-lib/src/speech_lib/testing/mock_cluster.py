"""A Kafka broker without Java: librdkafka's mock cluster.

`embedded` runs it. It is a real implementation of the broker's protocol, made for tests. It is part
of the library that confluent-kafka brings, and is called by `ctypes`. See
https://github.com/confluentinc/librdkafka/blob/master/src/rdkafka_mock.h for what each call does.

Its limits, measured: admin requests time out. Lookups of offsets by time answer -1. It keeps only
the newest 3 to 5 of the largest records of a partition. It does not de-duplicate retries. The first
member of a group joins at once, but every later change of its members takes the session timeout
less one second, unless the members use `group.protocol=consumer`. A topic that is produced to or
asked about is created; `set_topic_error` makes one that does not exist.
"""

import ctypes
from ctypes import c_char_p, c_int, c_int16, c_int32, c_size_t, c_void_p
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, cimpl

ALL_BROKERS = -1
UNKNOWN_TOPIC = 3
"""The Kafka error code UNKNOWN_TOPIC_OR_PART."""

_PRODUCER = 0
_ERROR_TEXT_BYTES = 512
_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (c_void_p, []),
    "rd_kafka_conf_set": (c_int, [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]),
    "rd_kafka_new": (c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    "rd_kafka_destroy": (None, [c_void_p]),
    "rd_kafka_mock_cluster_new": (c_void_p, [c_void_p, c_int]),
    "rd_kafka_mock_cluster_destroy": (None, [c_void_p]),
    "rd_kafka_mock_cluster_bootstraps": (c_char_p, [c_void_p]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [c_void_p, c_int32]),
    "rd_kafka_mock_topic_create": (c_int, [c_void_p, c_char_p, c_int, c_int]),
    "rd_kafka_mock_topic_set_error": (None, [c_void_p, c_char_p, c_int]),
    "rd_kafka_mock_push_request_errors_array": (
        None,
        [c_void_p, c_int16, c_size_t, ctypes.POINTER(c_int)],
    ),
    "rd_kafka_mock_clear_request_errors": (None, [c_void_p, c_int16]),
    "rd_kafka_mock_broker_set_down": (c_int, [c_void_p, c_int32]),
    "rd_kafka_mock_broker_set_up": (c_int, [c_void_p, c_int32]),
    "rd_kafka_mock_broker_set_rtt": (c_int, [c_void_p, c_int32, c_int]),
}


class MockClusterError(Exception):
    """The mock cluster refused; the text names the Kafka error."""


def _library() -> ctypes.CDLL:
    """Return librdkafka as confluent-kafka has loaded it, with the prototypes that are used here.

    It opens the extension module, not the library. Symbols are searched along its dependencies, so
    this finds the one copy that is loaded already, wherever the wheel has put it.
    """
    library = ctypes.CDLL(cimpl.__file__)
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class MockCluster:
    """Brokers on ports of the loopback interface, until `close`."""

    def __init__(self, brokers: int = 1) -> None:
        self._lib = _library()
        self._client = self._new_client()
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._client, brokers)
        if not self._cluster:
            self._lib.rd_kafka_destroy(self._client)
            raise MockClusterError("the mock cluster could not be started")
        # A group that forms waits 3 s for more members by default.
        self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)

    def _new_client(self) -> int:
        """Make the client that holds the cluster's state. It connects to nothing."""
        text = ctypes.create_string_buffer(_ERROR_TEXT_BYTES)
        config = self._lib.rd_kafka_conf_new()
        self._lib.rd_kafka_conf_set(config, b"log_level", b"3", text, _ERROR_TEXT_BYTES)
        client: int | None = self._lib.rd_kafka_new(_PRODUCER, config, text, _ERROR_TEXT_BYTES)
        if not client:
            raise MockClusterError(text.value.decode())
        return client

    @property
    def bootstrap_servers(self) -> str:
        """The value for `KAFKA_BOOTSTRAP_SERVERS`."""
        servers: bytes = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return servers.decode()

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Make a topic; one that exists is an error, as at a real broker."""
        code = self._lib.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1)
        self._check(code, f"topic {topic}")

    def set_topic_error(self, topic: str, code: int = UNKNOWN_TOPIC) -> None:
        """Answer requests for this topic's metadata with a Kafka error code; 0 ends it."""
        self._lib.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), code)

    def push_request_errors(self, api_key: int, *codes: int) -> None:
        """Answer the next requests of a kind (0 is Produce) with these error codes, one each.

        The code -195 (`_TRANSPORT`) breaks the connection instead.
        """
        array = (c_int * len(codes))(*codes)
        self._lib.rd_kafka_mock_push_request_errors_array(self._cluster, api_key, len(codes), array)

    def clear_request_errors(self, api_key: int) -> None:
        """Forget the errors that are still to be answered."""
        self._lib.rd_kafka_mock_clear_request_errors(self._cluster, api_key)

    def set_broker_down(self, broker: int = ALL_BROKERS) -> None:
        """Break a broker's connections and accept no new ones."""
        self._check(
            self._lib.rd_kafka_mock_broker_set_down(self._cluster, broker), f"broker {broker}"
        )

    def set_broker_up(self, broker: int = ALL_BROKERS) -> None:
        """Accept connections again."""
        self._check(
            self._lib.rd_kafka_mock_broker_set_up(self._cluster, broker), f"broker {broker}"
        )

    def set_rtt(self, milliseconds: int, broker: int = ALL_BROKERS) -> None:
        """Hold back every answer for this long."""
        self._check(
            self._lib.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds),
            f"broker {broker}",
        )

    def close(self) -> None:
        """End the brokers; all that they held is forgotten."""
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _check(self, code: int, what: str) -> None:
        if code:
            raise MockClusterError(f"{what}: {KafkaError(code).name()}")
