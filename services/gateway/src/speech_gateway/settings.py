"""The gateway's settings: those of all services, and its own. `__main__` builds them once."""

from ipaddress import IPv6Network, ip_network
from typing import Annotated, Literal

from pydantic import Field
from speech_lib.service.config import ServiceSettings
from speech_lib.service.setting_types import (
    Count,
    Host,
    Port,
    Reads,
    Seconds,
    Unreadable,
    choice,
    comma_separated,
    whole,
)

from speech_gateway import wav
from speech_gateway.admission import Networks
from speech_gateway.handshake import NO_ORIGIN
from speech_gateway.messages import MAX_TEXT_BYTES, Limits

MIN_WAV_BYTES = wav.HEADER_BYTES + wav.CONTAINER_HEAD_BYTES
MAX_WAV_BYTES = 1_572_864
MAX_CHUNK_BYTES = 65_536
MAX_RATE = 100_000

_IPV4_MAPPED = IPv6Network("::ffff:0:0/96")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

BufferLimitAction = Literal["reject", "publish"]
Results = Literal["off", "on"]


def _networks(text: str) -> Networks:
    try:
        networks = tuple(ip_network(item) for item in _items(text))
    except ValueError:
        raise Unreadable from None
    if any(isinstance(each, IPv6Network) and each.subnet_of(_IPV4_MAPPED) for each in networks):
        raise Unreadable  # addresses are counted as IPv4, so that this would match none
    return networks


def _origins(text: str) -> frozenset[str]:
    origins = _items(text)
    if not all(_is_origin(origin) for origin in origins):
        raise Unreadable
    return frozenset(origins)


def _items(text: str) -> tuple[str, ...]:
    """Split at commas; commas alone must not count as "not set", which admits everybody."""
    items = comma_separated(text)
    if not items:
        raise Unreadable
    return items


def _is_origin(text: str) -> bool:
    """Tell whether a browser could send this as an Origin (RFC 6454 section 6.2).

    An origin that no browser sends would never match: capitals, the scheme's default port, a path.
    """
    if text in {NO_ORIGIN, "null"}:
        return True
    scheme, separator, host = text.partition("://")
    printable = text.isascii() and text.isprintable() and " " not in text
    serialised = text == text.lower() and not host.endswith(_DEFAULT_PORTS.get(scheme, ()))
    plain = printable and serialised and not set(host) & set("/?#@*")
    return bool(scheme and separator and host) and plain


TrustedProxies = Annotated[
    Networks, Reads("IP addresses or networks such as 10.0.0.0/8, separated by commas", _networks)
]
OriginAllowlist = Annotated[
    frozenset[str],
    Reads(
        "origins as browsers send them (https://app.example), null or none, separated by commas",
        _origins,
    ),
]


class GatewaySettings(ServiceSettings):
    """Everything that the environment sets."""

    host: Host = Field("127.0.0.1", alias="HOST")
    """Address to listen on for clients."""

    port: Port = Field(8000, alias="PORT")
    """The port of `/ws/audio`."""

    max_connections: Count = Field(10, alias="MAX_CONNECTIONS")
    """Live clients at once."""

    max_connections_per_address: Count = Field(10, alias="MAX_CONNECTIONS_PER_ADDRESS")
    """Live clients at once from one address."""

    max_sessions_per_second_per_address: Count = Field(
        20, alias="MAX_SESSIONS_PER_SECOND_PER_ADDRESS"
    )
    """Burst and sustained rate of new clients from one address."""

    max_audio_speed: Count = Field(20, alias="MAX_AUDIO_SPEED")
    """Sustained rate of audio from one address, as a multiple of the pace of speech."""

    trusted_proxies: TrustedProxies = Field((), alias="TRUSTED_PROXIES")
    """Networks whose X-Forwarded-For is believed; empty: none."""

    max_buffer_bytes: Annotated[int, whole(MIN_WAV_BYTES, MAX_WAV_BYTES)] = Field(
        MAX_WAV_BYTES, alias="MAX_BUFFER_BYTES"
    )
    """The largest utterance, as a WAV file, in bytes."""

    max_chunk_bytes: Annotated[int, whole(MAX_TEXT_BYTES, MAX_CHUNK_BYTES)] = Field(
        MAX_CHUNK_BYTES, alias="MAX_CHUNK_BYTES"
    )
    """The largest message, in bytes; texts too, so it is never less than the largest text."""

    max_messages_per_second: Annotated[int, whole(1, MAX_RATE)] = Field(
        200, alias="MAX_MESSAGES_PER_SECOND"
    )
    """Burst and sustained rate of the messages of one client."""

    idle_timeout_seconds: Seconds = Field(10.0, alias="IDLE_TIMEOUT_SECONDS")
    """Time without audio after which an utterance ends."""

    max_session_seconds: Seconds = Field(60.0, alias="MAX_SESSION_SECONDS")
    """Time since the handshake after which an utterance ends."""

    handshake_timeout_seconds: Seconds = Field(5.0, alias="HANDSHAKE_TIMEOUT_SECONDS")
    """Time for a whole opening handshake."""

    delivery_timeout_seconds: Seconds = Field(10.0, alias="DELIVERY_TIMEOUT_SECONDS")
    """Time within which the broker must have stored an utterance."""

    drain_seconds: Seconds = Field(20.0, alias="DRAIN_SECONDS")
    """Time for clients to end when the gateway stops."""

    buffer_limit_action: Annotated[BufferLimitAction, choice(BufferLimitAction)] = Field(
        "reject", alias="BUFFER_LIMIT_ACTION"
    )
    """What to do with too long an utterance: reject it, or publish what fits."""

    origin_allowlist: OriginAllowlist = Field(frozenset(), alias="ORIGIN_ALLOWLIST")
    """Exact origins whose pages may connect; empty: all. `none` admits requests without one."""

    results: Annotated[Results, choice(Results)] = Field("off", alias="RESULTS")
    """Whether clients may ask for the text of their utterance on the same connection."""

    result_timeout_seconds: Seconds = Field(30.0, alias="RESULT_TIMEOUT_SECONDS")
    """Time from `accepted` within which the text must be there."""

    def limits(self) -> Limits:
        """Return what one session may do."""
        room = self.max_buffer_bytes - wav.HEADER_BYTES
        return Limits(
            max_chunk_bytes=self.max_chunk_bytes,
            max_audio_bytes=room - room % wav.SAMPLE_BYTES,
            max_messages_per_second=self.max_messages_per_second,
            idle_timeout_seconds=self.idle_timeout_seconds,
            max_session_seconds=self.max_session_seconds,
        )
