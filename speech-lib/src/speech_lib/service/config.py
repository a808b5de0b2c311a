"""Configuration from the environment: read once at the start, checked as a whole, frozen.

`run` calls `load` of a service's settings. Each service adds its fields in a subclass of
`ServiceSettings`, with the types of `setting_types`. The alias of a field is the name of its
variable. A variable set to the empty string counts as unset.
"""

import errno
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from speech_lib.errors import ConfigError
from speech_lib.kafka.settings import (
    KafkaSettings,
    SaslCredentials,
    SaslMechanism,
    SecurityProtocol,
)
from speech_lib.service.setting_types import (
    Environment,
    Host,
    HttpUrl,
    LogFormat,
    LogLevel,
    Port,
    Reads,
    Seconds,
    ServerList,
    Switch,
    Text,
    Topic,
    choice,
    comma_separated,
    matching,
)
from speech_lib.telemetry.settings import OtlpSettings

_FILE_SUFFIX = "_FILE"
_MAX_SECRET_BYTES = 4096
_PAIRS = "name=value, or several separated by commas"


def _is_pairs(text: str) -> bool:
    pairs = [item.partition("=") for item in comma_separated(text)]
    return text.isprintable() and bool(pairs) and all(name and sep for name, sep, _ in pairs)


Pairs = Annotated[str, matching(_PAIRS, _is_pairs)]


def _holds_certificates(text: str) -> bool:
    """Return whether librdkafka can use a file. It refuses any other without naming it."""
    try:
        ssl.create_default_context(cafile=text)
    except (OSError, ValueError):  # ssl.SSLError is the first, a NUL in the path the second
        return False
    return True


CertificatesFile = Annotated[
    str, matching("the path of a file of PEM certificates", _holds_certificates)
]


def inconsistent(variable: str, problem: str) -> PydanticCustomError:
    """Build the error for a variable that does not fit the others, for a model validator."""
    return PydanticCustomError("setting", "{line}", {"line": f"{variable}: {problem}"})


def unusable_address(variables: str, error: OSError) -> ConfigError:
    """Build the error for an address that cannot be listened on; it shows the error's kind only."""
    kind = errno.errorcode.get(error.errno or 0, "unknown host")
    return ConfigError(f"{variables}: expected an address that is free to listen on, got {kind}")


class EnvironmentSettings(BaseModel):
    """Settings that are read from environment variables: the aliases of the fields."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Read and check all variables.

        Raises:
            ConfigError: One line that names each wrong variable and what it takes.
        """
        values = {name: text for name in cls._variables() if (text := environ.get(name))}
        problems = list(cls._read_secret_files(environ, values))
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            problems += [cls._line(detail) for detail in details]
        if problems:
            raise ConfigError("; ".join(problems))
        return settings

    @classmethod
    def _variables(cls) -> dict[str, FieldInfo]:
        return {field.alias: field for field in cls.model_fields.values() if field.alias}

    @classmethod
    def _read_secret_files(
        cls, environ: Mapping[str, str], values: dict[str, str]
    ) -> Iterator[str]:
        """Fill in the secrets that are given as files; yield a line for each wrong one."""
        for name, field in cls._variables().items():
            path = environ.get(name + _FILE_SUFFIX)
            if not path or field.annotation != SecretStr | None:
                continue
            if name in values:
                yield f"{name}: expected this or {name}{_FILE_SUFFIX}, got both"
            elif secret := _read_secret(path):
                values[name] = secret
            else:
                yield f"{name}{_FILE_SUFFIX}: expected the path of a readable file with one line"

    @classmethod
    def _line(cls, detail: ErrorDetails) -> str:
        """Return the line about one wrong variable."""
        if not detail["loc"]:
            return detail["msg"]
        name = str(detail["loc"][0])
        if detail["type"] == "missing":
            return f"{name}: required, expected {_expected(cls._variables()[name])}"
        return f"{name}: {detail['msg']}"


def _read_secret(path: str) -> str | None:
    """Return the one line of a file, without its line end; None if it cannot be read."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            secret = file.read(_MAX_SECRET_BYTES).removesuffix("\n")
    except (OSError, ValueError):
        return None
    return secret if secret.isprintable() else None


def _expected(field: FieldInfo) -> str:
    return next((m.expected for m in field.metadata if isinstance(m, Reads)), "a value")


class KafkaEnvironment(EnvironmentSettings):
    """The variables of every program that uses Kafka: how to reach it, the topics, how to log."""

    kafka_bootstrap_servers: ServerList = Field(alias="KAFKA_BOOTSTRAP_SERVERS", repr=False)
    """Brokers to connect to first: host:port, separated by commas."""

    kafka_security_protocol: Annotated[SecurityProtocol, choice(SecurityProtocol)] = Field(
        "PLAINTEXT", alias="KAFKA_SECURITY_PROTOCOL"
    )
    """How the connection to the brokers is protected."""

    kafka_sasl_mechanism: Annotated[SaslMechanism, choice(SaslMechanism)] | None = Field(
        None, alias="KAFKA_SASL_MECHANISM"
    )
    """How this client proves who it is; needs a SASL security protocol, as do the next two."""

    kafka_sasl_username: Text | None = Field(None, alias="KAFKA_SASL_USERNAME", repr=False)
    """The client's name at the brokers."""

    kafka_sasl_password: SecretStr | None = Field(None, alias="KAFKA_SASL_PASSWORD")
    """Its password; read from a file where KAFKA_SASL_PASSWORD_FILE names one."""

    kafka_ssl_ca_location: CertificatesFile | None = Field(
        None, alias="KAFKA_SSL_CA_LOCATION", repr=False
    )
    """File of the authorities for the brokers' certificates; needs an SSL security protocol."""

    topic_audio_ingress: Topic = Field("speech.audio.ingress", alias="TOPIC_AUDIO_INGRESS")
    """Topic of the utterances."""

    topic_asr_text: Topic = Field("speech.asr.text", alias="TOPIC_ASR_TEXT")
    """Topic of the recognised texts."""

    topic_dead_letter: Topic = Field("speech.audio.ingress.dlq", alias="TOPIC_DEAD_LETTER")
    """Topic of the records that cannot be processed."""

    log_level: Annotated[LogLevel, choice(LogLevel)] = Field("INFO", alias="LOG_LEVEL")
    """The least level that is logged; DEBUG only in development."""

    log_format: Annotated[LogFormat, choice(LogFormat)] = Field("json", alias="LOG_FORMAT")
    """One JSON object a line, or lines for people."""

    environment: Annotated[Environment, choice(Environment)] = Field(
        "production", alias="ENVIRONMENT"
    )
    """Development alone permits debug logs and tracebacks, which may hold what people said."""

    def kafka(self) -> KafkaSettings:
        """Return how to reach the brokers, as the adapters take it."""
        return KafkaSettings(
            bootstrap_servers=self.kafka_bootstrap_servers,
            tls=self.kafka_security_protocol.endswith("SSL"),
            sasl=self._sasl(),
            ssl_ca_location=self.kafka_ssl_ca_location,
        )

    def _sasl(self) -> SaslCredentials | None:
        mechanism, password = self.kafka_sasl_mechanism, self.kafka_sasl_password
        if mechanism is None or self.kafka_sasl_username is None or password is None:
            return None  # `_check_sasl` permits all three or none
        return SaslCredentials(
            mechanism=mechanism, username=self.kafka_sasl_username, password=password
        )

    @model_validator(mode="after")
    def _check_logs(self) -> Self:
        if self.log_level == "DEBUG" and self.environment != "development":
            raise inconsistent("LOG_LEVEL", "DEBUG is permitted only with ENVIRONMENT=development")
        return self

    @model_validator(mode="after")
    def _check_topics(self) -> Self:
        if self.topic_audio_ingress == self.topic_asr_text:
            raise inconsistent("TOPIC_ASR_TEXT", "expected another topic than TOPIC_AUDIO_INGRESS")
        if self.topic_dead_letter in {self.topic_audio_ingress, self.topic_asr_text}:
            raise inconsistent("TOPIC_DEAD_LETTER", "expected another topic than the two others")
        return self

    @model_validator(mode="after")
    def _check_sasl(self) -> Self:
        credentials = {
            "KAFKA_SASL_MECHANISM": self.kafka_sasl_mechanism,
            "KAFKA_SASL_USERNAME": self.kafka_sasl_username,
            "KAFKA_SASL_PASSWORD": self.kafka_sasl_password,
        }
        sasl = self.kafka_security_protocol.startswith("SASL_")
        for name, value in credentials.items():
            if sasl and value is None:
                raise inconsistent(name, "required where KAFKA_SECURITY_PROTOCOL is SASL_…")
            if not sasl and value is not None:
                raise inconsistent(name, "needs KAFKA_SECURITY_PROTOCOL SASL_PLAINTEXT or SASL_SSL")
        return self

    @model_validator(mode="after")
    def _check_ssl(self) -> Self:
        if self.kafka_ssl_ca_location and not self.kafka_security_protocol.endswith("SSL"):
            raise inconsistent(
                "KAFKA_SSL_CA_LOCATION", "needs KAFKA_SECURITY_PROTOCOL SSL or SASL_SSL"
            )
        return self


class ServiceSettings(KafkaEnvironment):
    """The variables of every service; each service adds its own in a subclass."""

    schema_registry_url: HttpUrl = Field(alias="SCHEMA_REGISTRY_URL", repr=False)
    """Where the schemas of the events are kept."""

    schema_auto_register: Switch = Field(True, alias="SCHEMA_AUTO_REGISTER")
    """Whether to register the schemas of what is written; false: they are only looked up."""

    ops_host: Host = Field("127.0.0.1", alias="OPS_HOST")
    """Address on which the operations port listens."""

    ops_port: Port = Field(8001, alias="OPS_PORT")
    """The operations port (/livez, /readyz, /metrics)."""

    otel_exporter_otlp_endpoint: HttpUrl | None = Field(
        None, alias="OTEL_EXPORTER_OTLP_ENDPOINT", repr=False
    )
    """Base URL of an OpenTelemetry collector that takes OTLP over HTTP; needs the extra otlp."""

    otel_exporter_otlp_headers: SecretStr | None = Field(None, alias="OTEL_EXPORTER_OTLP_HEADERS")
    """Sent to the collector with each request: name=value, separated by commas; often a key."""

    otel_exporter_otlp_timeout: Seconds = Field(10.0, alias="OTEL_EXPORTER_OTLP_TIMEOUT")
    """Seconds for one request to the collector with all its attempts."""

    otel_resource_attributes: Pairs | None = Field(None, alias="OTEL_RESOURCE_ATTRIBUTES")
    """Sent with every span; OpenTelemetry itself reads it: name=value, separated by commas."""

    def otlp(self) -> OtlpSettings | None:
        """Return how to export spans; None where no endpoint is set."""
        if self.otel_exporter_otlp_endpoint is None:
            return None
        headers = self.otel_exporter_otlp_headers
        return OtlpSettings(
            self.otel_exporter_otlp_endpoint,
            headers.get_secret_value() if headers else "",
            self.otel_exporter_otlp_timeout,
        )

    @model_validator(mode="after")
    def _check_otlp_headers(self) -> Self:
        headers = self.otel_exporter_otlp_headers
        if headers and not _is_pairs(headers.get_secret_value()):
            raise inconsistent("OTEL_EXPORTER_OTLP_HEADERS", f"expected {_PAIRS}")
        return self
