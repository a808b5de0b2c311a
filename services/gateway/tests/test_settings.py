"""Every environment variable of the gateway: what it takes, and what a wrong value is told."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError
from speech_gateway.__main__ import admission_of, server_config
from speech_gateway.admission import Admission
from speech_gateway.messages import Limits
from speech_gateway.server_config import ServerConfig
from speech_gateway.settings import GatewaySettings
from speech_lib.errors import ConfigError

REQUIRED = {
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "SCHEMA_REGISTRY_URL": "http://registry:8081",
}


def load(**environ: str) -> GatewaySettings:
    return GatewaySettings.load(REQUIRED | environ)


def line(**environ: str) -> str:
    """Return the one line that whoever started the program is told."""
    with pytest.raises(ConfigError) as caught:
        load(**environ)
    return str(caught.value)


def test_the_defaults_are_those_of_the_documents() -> None:
    """With nothing but the two addresses set."""
    settings = load()
    assert settings.model_dump() == {
        "kafka_bootstrap_servers": "kafka:9092",
        "schema_registry_url": "http://registry:8081",
        "schema_auto_register": True,
        "kafka_security_protocol": "PLAINTEXT",
        "kafka_sasl_mechanism": None,
        "kafka_sasl_username": None,
        "kafka_sasl_password": None,
        "kafka_ssl_ca_location": None,
        "topic_audio_ingress": "speech.audio.ingress",
        "topic_asr_text": "speech.asr.text",
        "topic_dead_letter": "speech.audio.ingress.dlq",
        "ops_host": "127.0.0.1",
        "ops_port": 8001,
        "log_level": "INFO",
        "log_format": "json",
        "environment": "production",
        "otel_exporter_otlp_endpoint": None,
        "otel_exporter_otlp_headers": None,
        "otel_exporter_otlp_timeout": 10.0,
        "otel_resource_attributes": None,
        "host": "127.0.0.1",
        "port": 8000,
        "max_connections": 10,
        "max_connections_per_address": 10,
        "max_sessions_per_second_per_address": 20,
        "max_audio_speed": 20,
        "trusted_proxies": (),
        "max_buffer_bytes": 1_572_864,
        "max_chunk_bytes": 65_536,
        "max_messages_per_second": 200,
        "idle_timeout_seconds": 10.0,
        "max_session_seconds": 60.0,
        "handshake_timeout_seconds": 5.0,
        "delivery_timeout_seconds": 10.0,
        "drain_seconds": 20.0,
        "buffer_limit_action": "reject",
        "results": "off",
        "result_timeout_seconds": 30.0,
        "origin_allowlist": frozenset(),
    }
    assert settings.limits() == Limits(65_536, 1_572_820, 200, 10.0, 60.0)


# Numbers: bounds on both sides, and the value told back

WHOLE = {
    "PORT": (0, 65_535),
    "OPS_PORT": (0, 65_535),
    "MAX_CONNECTIONS": (1, 10_000),
    "MAX_CONNECTIONS_PER_ADDRESS": (1, 10_000),
    "MAX_SESSIONS_PER_SECOND_PER_ADDRESS": (1, 10_000),
    "MAX_AUDIO_SPEED": (1, 10_000),
    "MAX_BUFFER_BYTES": (56, 1_572_864),
    "MAX_CHUNK_BYTES": (4_096, 65_536),
    "MAX_MESSAGES_PER_SECOND": (1, 100_000),
}
SECONDS = [
    "IDLE_TIMEOUT_SECONDS",
    "MAX_SESSION_SECONDS",
    "HANDSHAKE_TIMEOUT_SECONDS",
    "DELIVERY_TIMEOUT_SECONDS",
    "DRAIN_SECONDS",
    "RESULT_TIMEOUT_SECONDS",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
]


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_is_taken_up_to_both_its_bounds(name: str) -> None:
    """The bounds themselves are allowed."""
    for value in WHOLE[name]:
        assert getattr(load(**{name: str(value)}), name.lower()) == value


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_beyond_its_bounds_or_of_another_kind_is_told_back(name: str) -> None:
    """One line: the variable, what it takes, what it got; a text that is no number is not shown."""
    low, high = WHOLE[name]
    expected = f"{name}: expected a whole number from {low} to {high}"
    for number in (str(low - 1), str(high + 1), "-1", "1.5", "1e2", "inf", "-inf", "nan", "NaN"):
        assert line(**{name: number}) == f"{expected}, got {number}"
    for text in ("many", "0x10", "1_000", "1,5", "１２", " ", "hunter2"):  # noqa: RUF001 - wide digits
        assert line(**{name: text}) == expected


@pytest.mark.parametrize("name", SECONDS)
def test_a_duration_is_bounded_finite_and_told_back(name: str) -> None:
    """From 0.1 s to 600 s: nothing switches a clock off."""
    for number in ("0.1", "2.5", "600"):
        assert getattr(load(**{name: number}), name.lower()) == float(number)
    expected = f"{name}: expected a number from 0.1 to 600"
    for number in ("0", "0.09", "-5", "600.1", "inf", "Infinity", "-inf", "nan", "1e999"):
        assert line(**{name: number}) == f"{expected}, got {number}"
    for text in ("10s", "ten", "1_0", "1,5", "hunter2"):
        assert line(**{name: text}) == expected


# Enumerations: the value told back

CHOICES = {
    "RESULTS": ("off or on", ["on", "ON"], "on"),
    "BUFFER_LIMIT_ACTION": ("reject or publish", ["publish", "PUBLISH"], "publish"),
    "LOG_LEVEL": ("DEBUG or INFO or WARNING or ERROR", ["warning", "WARNING"], "WARNING"),
    "LOG_FORMAT": ("json or console", ["console", "Console"], "console"),
    "ENVIRONMENT": ("production or development", ["development"], "development"),
    "SCHEMA_AUTO_REGISTER": ("true or false", ["false", "FALSE"], False),
}


@pytest.mark.parametrize("name", CHOICES)
def test_an_enumeration_takes_its_words_in_any_case_and_tells_others_back(name: str) -> None:
    """The line lists what is allowed."""
    expected, good, value = CHOICES[name]
    for text in good:
        assert getattr(load(**{name: text}), name.lower()) == value
    for text in ("never", "0", "none"):
        assert line(**{name: text}) == f"{name}: expected {expected}, got '{text}'"


def test_the_security_settings_are_enumerations_too() -> None:
    """A protocol or a mechanism that does not exist is told back."""
    assert line(KAFKA_SECURITY_PROTOCOL="TLS") == (
        "KAFKA_SECURITY_PROTOCOL: expected PLAINTEXT or SSL or SASL_PLAINTEXT or SASL_SSL, "
        "got 'TLS'"
    )
    assert line(KAFKA_SASL_MECHANISM="GSSAPI") == (
        "KAFKA_SASL_MECHANISM: expected PLAIN or SCRAM-SHA-256 or SCRAM-SHA-512, got 'GSSAPI'"
    )


# Addresses and names: never told back

SECRET = "hunter2.internal"  # noqa: S105 - stands for what must not be shown
TEXTS = {
    "KAFKA_BOOTSTRAP_SERVERS": (
        "host:port, or several separated by commas",
        [SECRET, f"{SECRET}:0", f"{SECRET}:65536", f"{SECRET}:port", f"kafka://{SECRET}:9092", ","],
    ),
    "SCHEMA_REGISTRY_URL": (
        "an http:// or https:// URL",
        [SECRET, f"ftp://{SECRET}", "http://", f"http://{SECRET}:99999", f"http://[{SECRET}"],
    ),
    "HOST": ("a host name or an IP address", [f"{SECRET}/x", f"a {SECRET}", f"http://{SECRET}"]),
    "OPS_HOST": ("a host name or an IP address", [f"{SECRET}/x", f"a {SECRET}", "*"]),
    "OTEL_EXPORTER_OTLP_ENDPOINT": (
        "an http:// or https:// URL",
        [SECRET, f"grpc://{SECRET}:4317", "http://", f"http://{SECRET}:99999"],
    ),
    "OTEL_RESOURCE_ATTRIBUTES": (
        "name=value, or several separated by commas",
        [SECRET, f"={SECRET}", f"a=b,{SECRET}", ","],
    ),
    "TOPIC_AUDIO_INGRESS": (
        "1 to 249 letters, digits, '.', '_' or '-'",
        [f"{SECRET}/x", "..", "x" * 250],
    ),
    "TOPIC_ASR_TEXT": (
        "1 to 249 letters, digits, '.', '_' or '-'",
        [f"{SECRET} x", ".", "x" * 250],
    ),
    "TOPIC_DEAD_LETTER": (
        "1 to 249 letters, digits, '.', '_' or '-'",
        [f"{SECRET}?", "é", "x" * 250],
    ),
    "KAFKA_SASL_USERNAME": ("1 to 255 printable characters", [f"{SECRET}\nx", "x" * 256]),
    "KAFKA_SSL_CA_LOCATION": (
        "the path of a file of PEM certificates",
        [f"missing/{SECRET}.pem", ".", f"{SECRET}\0"],
    ),
    "TRUSTED_PROXIES": (
        "IP addresses or networks such as 10.0.0.0/8, separated by commas",
        [
            *(
                SECRET,
                f"10.0.0.0/8,{SECRET}",
                "10.0.0.1/8",
                "10.0.0.0/33",
                "10.0.0.0/8;::1",
                ",",
                " ",
            ),
            *("::ffff:10.0.0.0/104", "10.0.0.0/8,::ffff:192.0.2.1"),
        ],
    ),
    "ORIGIN_ALLOWLIST": (
        "origins as browsers send them (https://app.example), null or none, separated by commas",
        [
            "*",
            SECRET,
            f"https://{SECRET}/",
            f"https://{SECRET}/path",
            f"https://{SECRET}?x",
            f"https://{SECRET}#x",
            f"https://me@{SECRET}",
            f"https://*.{SECRET}",
            f"https://{SECRET}:443",
            f"http://{SECRET}:80",
            f"https://{SECRET.upper()}",
            f"https://{SECRET} https://b",
            f"https://{SECRET}\x07",
            "https://bücher.example",
            "https://",
            "://host",
            f"https://{SECRET},nonsense",
            "None",
            ",",
            " , ",
            " ",
        ],
    ),
}


@pytest.mark.parametrize(
    ("name", "wrong"), [(name, text) for name, (_, texts) in TEXTS.items() for text in texts]
)
def test_a_wrong_address_or_name_is_one_line_that_does_not_repeat_it(name: str, wrong: str) -> None:
    """The variable and what it takes; also a list of nothing, which must not open the doors."""
    assert line(**{name: wrong}) == f"{name}: expected {TEXTS[name][0]}"


def test_every_variable_is_tried_here() -> None:
    """A variable that is added needs its wrong values added too."""
    elsewhere = {"KAFKA_SECURITY_PROTOCOL", "KAFKA_SASL_MECHANISM", "KAFKA_SASL_PASSWORD"}
    elsewhere |= {"OTEL_EXPORTER_OTLP_HEADERS"}
    tried = WHOLE.keys() | set(SECONDS) | CHOICES.keys() | TEXTS.keys() | elsewhere
    assert tried == {field.alias for field in GatewaySettings.model_fields.values()}


def test_a_required_variable_that_is_missing_or_empty_is_named() -> None:
    """All that is wrong is said at once, in one line; empty is as good as unset."""
    with pytest.raises(ConfigError) as caught:
        GatewaySettings.load({"KAFKA_BOOTSTRAP_SERVERS": "", "PORT": "-1", "MAX_CONNECTIONS": ""})
    assert set(str(caught.value).split("; ")) == {
        "KAFKA_BOOTSTRAP_SERVERS: required, expected host:port, or several separated by commas",
        "SCHEMA_REGISTRY_URL: required, expected an http:// or https:// URL",
        "PORT: expected a whole number from 0 to 65535, got -1",
    }


# Variables that must fit together


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"LOG_LEVEL": "DEBUG"},
            "LOG_LEVEL: DEBUG is permitted only with ENVIRONMENT=development",
        ),
        (
            {"KAFKA_SASL_PASSWORD": "hunter2"},
            "KAFKA_SASL_PASSWORD: needs KAFKA_SECURITY_PROTOCOL SASL_PLAINTEXT or SASL_SSL",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "PLAIN"},
            "KAFKA_SASL_USERNAME: required where KAFKA_SECURITY_PROTOCOL is SASL_…",
        ),
        (
            {"TOPIC_ASR_TEXT": "speech.audio.ingress"},
            "TOPIC_ASR_TEXT: expected another topic than TOPIC_AUDIO_INGRESS",
        ),
    ],
)
def test_variables_that_contradict_each_other_are_one_line(
    environ: dict[str, str], expected: str
) -> None:
    """The variable to change is named; a password is never shown."""
    assert line(**environ) == expected


def test_a_password_is_read_from_a_file_and_never_shown(tmp_path: Path) -> None:
    """Neither in the settings' own text nor in an error beside it."""
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    sasl = {
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": "gateway",
        "KAFKA_SASL_PASSWORD_FILE": str(secret),
    }
    settings = load(**sasl)
    assert settings.kafka().client_config()["sasl.password"] == "hunter2"
    assert "hunter2" not in repr(settings)
    assert line(**sasl, KAFKA_SASL_PASSWORD="hunter2") == (  # noqa: S106 - a made-up one
        "KAFKA_SASL_PASSWORD: expected this or KAFKA_SASL_PASSWORD_FILE, got both"
    )


# What is made of good values


@pytest.mark.parametrize(
    ("buffer_bytes", "audio_bytes"),
    [("56", 12), ("57", 12), ("58", 14), ("65579", 65_534), ("1572864", 1_572_820)],
)
def test_the_longest_utterance_is_the_buffer_less_the_header_in_whole_samples(
    buffer_bytes: str, audio_bytes: int
) -> None:
    """An odd buffer holds half a sample that can never be used."""
    assert load(MAX_BUFFER_BYTES=buffer_bytes).limits().max_audio_bytes == audio_bytes


def test_the_limits_of_a_session_are_the_settings() -> None:
    """Each from its own variable."""
    settings = load(
        MAX_CHUNK_BYTES="5000",
        MAX_BUFFER_BYTES="1044",
        MAX_MESSAGES_PER_SECOND="7",
        IDLE_TIMEOUT_SECONDS="1.5",
        MAX_SESSION_SECONDS="30",
    )
    assert settings.limits() == Limits(5000, 1000, 7, 1.5, 30.0)


def test_trusted_proxies_are_addresses_and_networks() -> None:
    """Spaces around the commas do not matter."""
    settings = load(TRUSTED_PROXIES="10.0.0.0/8, 192.0.2.1 ,fd00::/8")
    assert settings.trusted_proxies == tuple(
        map(ip_network, ("10.0.0.0/8", "192.0.2.1/32", "fd00::/8"))
    )


def test_origins_are_kept_as_browsers_send_them() -> None:
    """Other schemes, other ports, `null` for opaque ones and `none` for no Origin at all."""
    origins = [
        "https://app.example",
        "http://localhost:3000",
        "http://[::1]:8080",
        "chrome-extension://abcdefghijklmnop",
        "https://app.example:80",
        "null",
        "none",
    ]
    assert load(ORIGIN_ALLOWLIST=" , ".join(origins)).origin_allowlist == frozenset(origins)


def test_the_settings_are_frozen() -> None:
    """Built once: nobody changes a limit while the gateway runs."""
    settings = load()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1


def test_the_server_is_told_what_the_environment_says() -> None:
    """Every setting that is about clients reaches the server."""
    settings = load(
        HOST="127.0.0.2",
        PORT="0",
        ORIGIN_ALLOWLIST="https://app.example",
        TRUSTED_PROXIES="10.0.0.0/8",
        MAX_AUDIO_SPEED="7",
        MAX_CONNECTIONS_PER_ADDRESS="3",
        BUFFER_LIMIT_ACTION="publish",
        HANDSHAKE_TIMEOUT_SECONDS="3",
    )
    assert server_config(settings) == ServerConfig(
        host="127.0.0.2",
        port=0,
        limits=settings.limits(),
        fill_at_limit=True,
        origin_allowlist=frozenset({"https://app.example"}),
        trusted_proxies=(ip_network("10.0.0.0/8"),),
        max_audio_speed=7,
        utterances_at_once=3,
        handshake_timeout=3.0,
    )


def test_admission_is_told_what_the_environment_says() -> None:
    """Connections in all, by address, and by address and second."""
    settings = load(
        MAX_CONNECTIONS="3",
        MAX_CONNECTIONS_PER_ADDRESS="2",
        MAX_SESSIONS_PER_SECOND_PER_ADDRESS="1",
    )
    assert admission_of(settings) == Admission(3, 2, 1)
