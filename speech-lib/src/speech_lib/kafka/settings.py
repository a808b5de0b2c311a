"""How to reach the brokers: the settings that every Kafka client shares, and quiet logs.

`config` builds a `KafkaSettings` from the environment; `producer`, `consumer` and `topics` turn it
into librdkafka's configuration. Its own log lines carry addresses, so `client_logger` takes them
out. Nothing here touches a network.
"""

import logging
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
ClientConfig = dict[str, str | int | float | bool]

MAX_RECORD_BYTES = 2_097_152
"""The largest record: agreed between producer, topics and consumer."""

_REPEAT_SECONDS = 5.0
_ENDPOINT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")


def _endpoints(value: str) -> str:
    """Check a comma-separated list of host:port; the text of the error does not repeat it."""
    for part in value.split(","):
        match = _ENDPOINT.fullmatch(part.strip())
        if match is None or not 1 <= int(match["port"]) <= 65_535:  # noqa: PLR2004  # TCP's bound
            raise ValueError("takes a comma-separated list of host:port")
    return value


BootstrapServers = Annotated[str, AfterValidator(_endpoints)]


class KafkaSettings(BaseModel):
    """Where the brokers are and how to prove who we are.

    Neither `repr` nor a validation error shows an address or a secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    bootstrap_servers: BootstrapServers = Field(repr=False)
    """Comma-separated host:port of one or more brokers."""
    security_protocol: SecurityProtocol = "PLAINTEXT"
    """TLS or not, SASL or not."""
    sasl_mechanism: SaslMechanism | None = None
    """Required with SASL_*."""
    sasl_username: str | None = Field(default=None, repr=False)
    """Required with SASL_*."""
    sasl_password: SecretStr | None = None
    """Required with SASL_*."""
    ssl_ca_location: str | None = Field(default=None, repr=False)
    """File of the authorities to trust; the system's where it is not set."""

    @model_validator(mode="after")
    def _sasl_is_whole(self) -> Self:
        credentials = (self.sasl_mechanism, self.sasl_username, self.sasl_password)
        if self.security_protocol.startswith("SASL_") and not all(credentials):
            raise ValueError("SASL takes a mechanism, a username and a password")
        return self

    def client_config(self) -> ClientConfig:
        """Return librdkafka's settings that every client needs, producer, consumer or admin."""
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            **self._sasl(),
            **({"ssl.ca.location": self.ssl_ca_location} if self.ssl_ca_location else {}),
            # A broker that comes back is tried at least once a second.
            "reconnect.backoff.ms": 100,
            "reconnect.backoff.max.ms": 1_000,
            # A host that swallows packets must not hold a client for the default of 30 s.
            "socket.connection.setup.timeout.ms": 3_000,
            "socket.keepalive.enable": True,
            "message.max.bytes": MAX_RECORD_BYTES,
        }

    def _sasl(self) -> ClientConfig:
        if not self.security_protocol.startswith("SASL_"):
            return {}
        assert self.sasl_mechanism  # noqa: S101  # held by `_sasl_is_whole`
        assert self.sasl_username  # noqa: S101
        assert self.sasl_password  # noqa: S101
        return {
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password.get_secret_value(),
        }


_ADDRESS = re.compile(
    r"""
    \[thrd:[^\]]*\]:?\s*                    # the thread, named after its broker
    | (?:[a-z_]+://)?                        # sasl_ssl://
      (?:ipv[46]\#)?                         # ipv4#, as librdkafka marks what it resolved
      (?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)
      :[0-9]{1,5}\b (?:/[A-Za-z0-9_]+)?      # host:port, and /node or /bootstrap
    | \b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b      # an address without its port
    """,
    re.VERBOSE,
)


class HideAddresses(logging.Filter):
    """Takes broker addresses out of librdkafka's log lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the record's text by one without addresses; keep every record."""
        record.msg, record.args = without_addresses(record.getMessage()), ()
        return True


class LimitRepeats(logging.Filter):
    """Lets one line of a kind through in a while.

    A broker that is down would be reported at each attempt to connect. The format of librdkafka's
    lines is `%s [%s] %s`, and the first argument is its name for the kind of line.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a record unless one of its kind came shortly before."""
        kind = str(record.args[0]) if isinstance(record.args, tuple) and record.args else ""
        if record.created - self._last.get(kind, -self._seconds) < self._seconds:
            return False
        self._last[kind] = record.created
        return True


def without_addresses(text: str) -> str:
    """Replace every host:port and IP address in a line of librdkafka's by `<broker>`."""
    return _ADDRESS.sub(lambda found: "" if "thrd:" in found[0] else "<broker>", text)


def client_logger(role: str) -> logging.Logger:
    """Return the logger for the lines of a client's librdkafka, given to it as `logger=`."""
    # Not the name of a module: its filters would take lines of ours.
    logger = logging.getLogger(f"speech_lib.librdkafka.{role}")
    if not logger.filters:
        logger.addFilter(LimitRepeats(_REPEAT_SECONDS))
        logger.addFilter(HideAddresses())
    return logger
