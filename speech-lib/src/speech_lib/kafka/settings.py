"""How to reach the brokers: the settings that every Kafka client shares, and its log lines.

`service.config` builds a `KafkaSettings` from the environment. The adapters of this package turn it
into librdkafka's configuration, and give their clients a `client_logger`. Touches no network.
"""

import logging
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
ClientConfig = dict[str, str | int | float | bool]

MAX_RECORD_BYTES = 2_097_152
"""The largest record. Producer, topics and consumer agree on it."""

MAX_AHEAD_BYTES = 4 * MAX_RECORD_BYTES
"""What a member of a group may read of a partition beyond its first record that is not done.

After it was killed so much is read apart (`apart`), and so much may be done again.
"""

_REPEAT_SECONDS = 5.0
_SERVER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
_MAX_PORT = 65_535


def is_server_list(text: str) -> bool:
    """Return whether a text is host:port, or several separated by commas."""
    matches = [_SERVER.fullmatch(part.strip()) for part in text.split(",")]
    return all(match and 1 <= int(match["port"]) <= _MAX_PORT for match in matches)


def _servers(text: str) -> str:
    if not is_server_list(text):
        raise ValueError("takes a comma-separated list of host:port")  # the text is not repeated
    return text


class SaslCredentials(BaseModel):
    """Who this client is to the brokers."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    mechanism: SaslMechanism
    username: str = Field(repr=False)
    password: SecretStr


class KafkaSettings(BaseModel):
    """Where the brokers are, and who we are to them.

    Neither `repr` nor a validation error shows an address or a secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    bootstrap_servers: Annotated[str, AfterValidator(_servers)] = Field(repr=False)
    """host:port of one or more brokers, separated by commas."""
    tls: bool = False
    """Whether the connection is encrypted."""
    sasl: SaslCredentials | None = None
    """The credentials; None where the brokers ask for none."""
    ssl_ca_location: str | None = Field(default=None, repr=False)
    """File of the certificate authorities to trust; the system's where it is not set."""

    def client_config(self) -> ClientConfig:
        """Return librdkafka's settings that every client needs: producer, consumer, admin."""
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self._security_protocol(),
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

    def _security_protocol(self) -> str:
        return ("SASL_" if self.sasl else "") + ("SSL" if self.tls else "PLAINTEXT")

    def _sasl(self) -> ClientConfig:
        if self.sasl is None:
            return {}
        return {
            "sasl.mechanism": self.sasl.mechanism,
            "sasl.username": self.sasl.username,
            "sasl.password": self.sasl.password.get_secret_value(),
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
    """Lets one line of each kind through in a while.

    librdkafka reports a broker that is down at each attempt to connect. The format of its lines is
    `%s [%s] %s`, and the first argument is its name for the kind of line.

    Args:
        seconds: Further lines of a kind are dropped for so long.
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
    """Replace every host:port and IP address in a line of librdkafka by `<broker>`."""
    return _ADDRESS.sub(lambda found: "" if "thrd:" in found[0] else "<broker>", text)


def client_logger(role: str) -> logging.Logger:
    """Return the logger for the lines of a client's librdkafka, which takes it as `logger=`."""
    # Not the name of a module: the filters would take lines of ours.
    logger = logging.getLogger(f"speech_lib.librdkafka.{role}")
    if not logger.filters:
        logger.addFilter(LimitRepeats(_REPEAT_SECONDS))
        logger.addFilter(HideAddresses())
    return logger
