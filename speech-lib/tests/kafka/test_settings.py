"""How brokers are reached, and what is never shown of it."""

import logging

import pytest
from pydantic import SecretStr, ValidationError
from speech_lib.kafka.settings import (
    HideAddresses,
    KafkaSettings,
    LimitRepeats,
    SaslCredentials,
    without_addresses,
)

COMMON = {
    "reconnect.backoff.ms": 100,
    "reconnect.backoff.max.ms": 1_000,
    "socket.connection.setup.timeout.ms": 3_000,
    "socket.keepalive.enable": True,
    "message.max.bytes": 2_097_152,
}
SASL = SaslCredentials(
    mechanism="SCRAM-SHA-512", username="the-gateway", password=SecretStr("hush")
)


def test_plain_connection():
    """Without security there is nothing of it in the configuration."""
    assert KafkaSettings(bootstrap_servers="one:9092,two:9093").client_config() == {
        "bootstrap.servers": "one:9092,two:9093",
        "security.protocol": "PLAINTEXT",
        **COMMON,
    }


def test_secured_connection():
    """TLS, its authorities and the credentials are handed to librdkafka."""
    settings = KafkaSettings(
        bootstrap_servers="one:9092", tls=True, sasl=SASL, ssl_ca_location="/ca.pem"
    )
    assert settings.client_config() == {
        "bootstrap.servers": "one:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "the-gateway",
        "sasl.password": "hush",
        "ssl.ca.location": "/ca.pem",
        **COMMON,
    }


def test_settings_show_neither_address_nor_secret():
    """A settings object may end up in a log."""
    shown = repr(KafkaSettings(bootstrap_servers="broker.internal:9092", sasl=SASL))
    for hidden in ("broker.internal", "the-gateway", "hush"):
        assert hidden not in shown


@pytest.mark.parametrize(
    "servers",
    ["", "host", "host:", ":9092", "host:0", "host:65536", "host:x", "one:1,,two:2", "a b:1"],
)
def test_servers_that_cannot_be_reached_are_refused(servers):
    """A list that is no list of host:port is told as such, without repeating it."""
    with pytest.raises(ValidationError, match="takes a comma-separated list of host:port") as error:
        KafkaSettings(bootstrap_servers=servers)
    assert "input_value" not in str(error.value)


@pytest.mark.parametrize("servers", ["localhost:9092", "[::1]:9092", "10.0.0.1:1, b-2.c_d:65535"])
def test_any_kind_of_host_is_accepted(servers):
    """Names, IPv4 and IPv6 addresses."""
    assert KafkaSettings(bootstrap_servers=servers).bootstrap_servers == servers


@pytest.mark.parametrize(
    ("tls", "sasl", "protocol"),
    [
        (False, None, "PLAINTEXT"),
        (True, None, "SSL"),
        (False, SASL, "SASL_PLAINTEXT"),
        (True, SASL, "SASL_SSL"),
    ],
)
def test_the_protocol_says_how_the_connection_is_protected(tls, sasl, protocol):
    """By TLS or not, with credentials or not."""
    settings = KafkaSettings(bootstrap_servers="one:9092", tls=tls, sasl=sasl)
    assert settings.client_config()["security.protocol"] == protocol


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            (
                "[thrd:localhost:9092/bootstrap]: localhost:9092/bootstrap: Connect to "
                "ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)"
            ),
            "<broker>: Connect to <broker> failed: Connection refused (after 0ms in state CONNECT)",
        ),
        (
            (
                "[thrd:sasl_ssl://b-1.kafka.internal:9093/1]: "
                "sasl_ssl://b-1.kafka.internal:9093/1: Connect to "
                "ipv6#[fd00::12]:9093 failed: No route to host"
            ),
            "<broker>: Connect to <broker> failed: No route to host",
        ),
        (
            "Failed to resolve 'kafka:9092': Name or service not known",
            "Failed to resolve '<broker>': Name or service not known",
        ),
        ("1/1 brokers are down", "1/1 brokers are down"),
        ("no route to 10.1.2.3 yet", "no route to <broker> yet"),
    ],
)
def test_addresses_are_taken_out_of_log_lines(line, shown):
    """What remains is what an operator needs."""
    assert without_addresses(line) == shown


def record(*args: str, at: float = 0.0) -> logging.LogRecord:
    """Return a record as confluent-kafka makes it from a line of librdkafka's."""
    made = logging.LogRecord("k", logging.ERROR, "", 0, "%s [%s] %s", args, None)
    made.created = at
    return made


def test_the_filter_replaces_the_whole_text():
    """No formatter can bring the arguments back."""
    line = record("FAIL", "gateway#producer-1", "kafka:9092/1: Disconnected")
    assert HideAddresses().filter(line)
    assert (line.msg, line.args) == ("FAIL [gateway#producer-1] <broker>: Disconnected", ())


def test_repeats_of_a_kind_are_dropped_for_a_while():
    """A broker that is down fills no log, and hides nothing of another kind."""
    limit = LimitRepeats(5.0)
    lines = [("FAIL", 0.0), ("FAIL", 4.9), ("FATAL", 4.9), ("FAIL", 5.0), ("FAIL", 9.0)]
    assert [limit.filter(record(kind, "c", "x", at=at)) for kind, at in lines] == [
        True,
        False,
        True,
        True,
        False,
    ]
