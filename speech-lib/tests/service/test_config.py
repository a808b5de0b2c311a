"""Settings from the environment: what is accepted, and the one line that says what is not."""

import stat
from pathlib import Path
from typing import Annotated, Literal

import certifi
import pytest
from pydantic import Field, SecretStr
from speech_lib.errors import ConfigError
from speech_lib.kafka.settings import KafkaSettings, SaslCredentials
from speech_lib.service.config import KafkaEnvironment, ServiceSettings, unusable_address
from speech_lib.service.setting_types import Count, Seconds, choice, comma_separated, number, whole

REQUIRED = {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", "SCHEMA_REGISTRY_URL": "http://registry:8081"}
SASL = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "gateway",
    "KAFKA_SASL_PASSWORD": "hunter2",
}
PASSWORD = {"KAFKA_SASL_PASSWORD": "hunter2"}


class Example(ServiceSettings):
    """A service's settings, one field of each shared type."""

    max_connections: Count = Field(10, alias="MAX_CONNECTIONS")
    max_bytes: Annotated[int, whole(1000, 2000)] = Field(2000, alias="MAX_BYTES")
    idle_timeout: Seconds = Field(10.0, alias="IDLE_TIMEOUT_SECONDS")
    ratio: Annotated[float, number(0.5, 1)] = Field(1.0, alias="RATIO")
    action: Annotated[Literal["reject", "publish"], choice(Literal["reject", "publish"])] = Field(
        "reject", alias="ACTION"
    )


def load(**variables: str) -> Example:
    """Load with what is required and these variables."""
    return Example.load({**REQUIRED, **variables})


def refusal(**variables: str) -> str:
    """Return the line with which these variables are refused."""
    with pytest.raises(ConfigError) as error:
        load(**variables)
    return str(error.value)


def test_defaults() -> None:
    """Only the broker and the registry must be named."""
    assert Example.load(REQUIRED).model_dump(by_alias=True) == {
        **REQUIRED,
        "SCHEMA_AUTO_REGISTER": True,
        "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
        "KAFKA_SASL_MECHANISM": None,
        "KAFKA_SASL_USERNAME": None,
        "KAFKA_SASL_PASSWORD": None,
        "KAFKA_SSL_CA_LOCATION": None,
        "TOPIC_AUDIO_INGRESS": "speech.audio.ingress",
        "TOPIC_ASR_TEXT": "speech.asr.text",
        "TOPIC_DEAD_LETTER": "speech.audio.ingress.dlq",
        "OPS_HOST": "127.0.0.1",
        "OPS_PORT": 8001,
        "LOG_LEVEL": "INFO",
        "LOG_FORMAT": "json",
        "ENVIRONMENT": "production",
        "OTEL_EXPORTER_OTLP_ENDPOINT": None,
        "OTEL_EXPORTER_OTLP_HEADERS": None,
        "OTEL_EXPORTER_OTLP_TIMEOUT": 10.0,
        "OTEL_RESOURCE_ATTRIBUTES": None,
        "MAX_CONNECTIONS": 10,
        "MAX_BYTES": 2000,
        "IDLE_TIMEOUT_SECONDS": 10.0,
        "RATIO": 1.0,
        "ACTION": "reject",
    }


def test_empty_string_counts_as_unset() -> None:
    """Compose hands over variables that are not set as empty ones."""
    assert load(MAX_CONNECTIONS="", KAFKA_SASL_PASSWORD="", LOG_LEVEL="") == Example.load(REQUIRED)


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("MAX_CONNECTIONS", "1", "max_connections", 1),
        ("MAX_CONNECTIONS", "10000", "max_connections", 10_000),
        ("MAX_BYTES", "1000", "max_bytes", 1000),
        ("MAX_BYTES", " 1000\n", "max_bytes", 1000),
        ("IDLE_TIMEOUT_SECONDS", "0.1", "idle_timeout", 0.1),
        ("IDLE_TIMEOUT_SECONDS", "600", "idle_timeout", 600.0),
        ("OPS_PORT", "0", "ops_port", 0),
        ("OPS_PORT", "65535", "ops_port", 65_535),
        ("OPS_HOST", "::1", "ops_host", "::1"),
        ("ACTION", "PUBLISH", "action", "publish"),
        ("LOG_LEVEL", "warning", "log_level", "WARNING"),
        ("SCHEMA_AUTO_REGISTER", "False", "schema_auto_register", False),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:1,[::1]:2", "kafka_bootstrap_servers", "a:1,[::1]:2"),
        ("SCHEMA_REGISTRY_URL", "https://r/x", "schema_registry_url", "https://r/x"),
    ],
)
def test_accepted(variable: str, text: str, field: str, value: object) -> None:
    """Bounds are included, and words are read in capitals or not."""
    assert getattr(load(**{variable: text}), field) == value


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("0", ", got 0"),
        ("-1", ", got -1"),
        ("10001", ", got 10001"),
        ("1.5", ", got 1.5"),
        ("0\n", ", got 0"),
        ("inf", ", got inf"),
        ("nan", ", got nan"),
        ("9" * 50, f", got {'9' * 20}"),
        ("9" * 5000, f", got {'9' * 20}"),
        ("secret", ""),
        ("1_0", ""),
        ("٣", ""),
    ],
)
def test_whole_number_outside_its_bounds(text: str, got: str) -> None:
    """The value is told back only where it is a number."""
    expected = f"MAX_CONNECTIONS: expected a whole number from 1 to 10000{got}"
    assert refusal(MAX_CONNECTIONS=text) == expected


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("0", ", got 0"),
        ("-0.1", ", got -0.1"),
        ("0.09", ", got 0.09"),
        ("600.1", ", got 600.1"),
        ("inf", ", got inf"),
        ("-Infinity", ", got -Infinity"),
        ("NaN", ", got NaN"),
        ("1e999", ", got 1e999"),
        ("ten", ""),
        ("1_0", ""),
    ],
)
def test_number_outside_its_bounds(text: str, got: str) -> None:
    """Nothing can switch a time limit off."""
    expected = f"IDLE_TIMEOUT_SECONDS: expected a number from 0.1 to 600{got}"
    assert refusal(IDLE_TIMEOUT_SECONDS=text) == expected


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"ACTION": "drop"}, "ACTION: expected reject or publish, got 'drop'"),
        ({"ACTION": "a\n{b}"}, r"ACTION: expected reject or publish, got 'a\n{b}'"),
        ({"SCHEMA_AUTO_REGISTER": "1"}, "SCHEMA_AUTO_REGISTER: expected true or false, got '1'"),
        ({"OPS_PORT": "65536"}, "OPS_PORT: expected a whole number from 0 to 65535, got 65536"),
        ({"OPS_HOST": "a b"}, "OPS_HOST: expected a host name or an IP address"),
        (
            {"TOPIC_ASR_TEXT": "a/b"},
            "TOPIC_ASR_TEXT: expected 1 to 249 letters, digits, '.', '_' or '-'",
        ),
        (
            {"TOPIC_ASR_TEXT": ".."},
            "TOPIC_ASR_TEXT: expected 1 to 249 letters, digits, '.', '_' or '-'",
        ),
        (
            {"TOPIC_ASR_TEXT": "speech.audio.ingress"},
            "TOPIC_ASR_TEXT: expected another topic than TOPIC_AUDIO_INGRESS",
        ),
        (
            {"LOG_LEVEL": "DEBUG"},
            "LOG_LEVEL: DEBUG is permitted only with ENVIRONMENT=development",
        ),
        (
            {"LOG_LEVEL": "loud"},
            "LOG_LEVEL: expected DEBUG or INFO or WARNING or ERROR, got 'loud'",
        ),
        (
            {"KAFKA_SASL_USERNAME": "x\x00y"},
            "KAFKA_SASL_USERNAME: expected 1 to 255 printable characters",
        ),
        (
            {"KAFKA_SSL_CA_LOCATION": __file__},
            "KAFKA_SSL_CA_LOCATION: expected the path of a file of PEM certificates",
        ),
    ],
)
def test_wrong_value_gets_one_line(variables: dict[str, str], line: str) -> None:
    """The line names the variable and what it takes; only enumerations are told back."""
    assert refusal(**variables) == line


def test_server_list_is_checked_and_never_told() -> None:
    """By the rule of `KafkaSettings`."""
    line = "KAFKA_BOOTSTRAP_SERVERS: expected host:port, or several separated by commas"
    assert refusal(KAFKA_BOOTSTRAP_SERVERS="a:1,,b:2") == line


@pytest.mark.parametrize(
    "text", ["registry", "ftp://r", "http://", "http://r:0", "http://[", "http://r:x"]
)
def test_url_is_checked_and_never_told(text: str) -> None:
    """The registry speaks HTTP."""
    line = "SCHEMA_REGISTRY_URL: expected an http:// or https:// URL"
    assert refusal(SCHEMA_REGISTRY_URL=text) == line


def test_values_separated_by_commas() -> None:
    """Spaces and empty values do not count."""
    assert comma_separated(" a, b,,") == ("a", "b")


def test_all_that_is_wrong_is_on_one_line() -> None:
    """Missing and wrong variables are told together."""
    with pytest.raises(ConfigError) as error:
        Example.load({"MAX_CONNECTIONS": "0", "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"})
    assert str(error.value) == (
        "SCHEMA_REGISTRY_URL: required, expected an http:// or https:// URL; "
        "MAX_CONNECTIONS: expected a whole number from 1 to 10000, got 0"
    )


def test_kafka_settings_are_handed_over() -> None:
    """What the adapters take is made of the variables."""
    ca = certifi.where()
    assert load(**SASL, KAFKA_SSL_CA_LOCATION=ca).kafka() == KafkaSettings(
        bootstrap_servers="kafka:9092",
        tls=True,
        sasl=SaslCredentials(
            mechanism="SCRAM-SHA-512", username="gateway", password=SecretStr("hunter2")
        ),
        ssl_ca_location=ca,
    )


@pytest.mark.parametrize("missing", sorted(set(SASL) - {"KAFKA_SECURITY_PROTOCOL"}))
def test_sasl_needs_mechanism_name_and_password(missing: str) -> None:
    """A protocol with SASL and half of the credentials is refused."""
    given = {name: text for name, text in SASL.items() if name != missing}
    assert refusal(**given) == f"{missing}: required where KAFKA_SECURITY_PROTOCOL is SASL_…"


@pytest.mark.parametrize("name", sorted(set(SASL) - {"KAFKA_SECURITY_PROTOCOL"}))
def test_credentials_need_sasl(name: str) -> None:
    """A password that would silently not be used is refused."""
    line = f"{name}: needs KAFKA_SECURITY_PROTOCOL SASL_PLAINTEXT or SASL_SSL"
    assert refusal(**{name: SASL[name]}) == line


def test_ca_needs_tls() -> None:
    """Certificates that would silently not be used are refused."""
    line = "KAFKA_SSL_CA_LOCATION: needs KAFKA_SECURITY_PROTOCOL SSL or SASL_SSL"
    assert refusal(KAFKA_SSL_CA_LOCATION=certifi.where()) == line


def with_password_file(path: Path) -> dict[str, str]:
    """Return SASL settings whose password is in a file."""
    given = {name: text for name, text in SASL.items() if name != "KAFKA_SASL_PASSWORD"}
    return {**given, "KAFKA_SASL_PASSWORD_FILE": str(path)}


@pytest.mark.parametrize("content", [b"hunter2", b"hunter2\n", b"hunter2\r\n"])
def test_password_from_a_file(tmp_path: Path, content: bytes) -> None:
    """The line end that an editor adds is not part of it."""
    path = tmp_path / "password"
    path.write_bytes(content)
    assert load(**with_password_file(path)).kafka_sasl_password == SecretStr("hunter2")


@pytest.mark.parametrize("content", [None, b"", b"\n", b"two\nlines", b"\xff"])
def test_password_file_that_is_of_no_use(tmp_path: Path, content: bytes | None) -> None:
    """Neither the path nor the content is told."""
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    line = "KAFKA_SASL_PASSWORD_FILE: expected the path of a readable file with one line"
    assert refusal(**with_password_file(path)).startswith(line)


def test_password_twice_is_refused(tmp_path: Path) -> None:
    """A password in a variable and in a file: nobody would know which one counts."""
    line = "KAFKA_SASL_PASSWORD: expected this or KAFKA_SASL_PASSWORD_FILE, got both"
    assert refusal(**with_password_file(tmp_path / "password"), **PASSWORD) == line


def test_repr_shows_neither_secrets_nor_addresses() -> None:
    """Settings may end up in a traceback."""
    settings = load(**SASL)
    shown = f"{settings!r} {settings} {settings.kafka()!r}"
    hidden = ("hunter2", "gateway", "kafka:9092", "registry")
    assert [text for text in hidden if text in shown] == []
    assert "hunter2" not in str(settings.model_dump())


def test_settings_are_frozen() -> None:
    """They are read once and never change."""
    with pytest.raises(ValueError, match="frozen"):
        load().log_level = "ERROR"


def test_debug_is_permitted_in_development() -> None:
    """There and nowhere else."""
    assert load(LOG_LEVEL="debug", ENVIRONMENT="development").log_level == "DEBUG"


def test_kafka_alone_needs_no_registry() -> None:
    """What only makes topics reads only what it uses."""
    settings = KafkaEnvironment.load({"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"})
    assert settings.kafka() == KafkaSettings(bootstrap_servers="kafka:9092")


def test_address_that_cannot_be_used_is_not_told() -> None:
    """The kind of the error is enough."""
    error = unusable_address("HOST, PORT", OSError(98, "127.0.0.1:8000 in use"))
    expected = "HOST, PORT: expected an address that is free to listen on, got EADDRINUSE"
    assert str(error) == expected


def test_unreadable_password_file_is_told_without_its_path(tmp_path: Path) -> None:
    """A directory in its place, for example a mount that failed."""
    path = tmp_path / "secret-name"
    path.mkdir(mode=stat.S_IRWXU)
    assert "secret-name" not in refusal(**with_password_file(path))
