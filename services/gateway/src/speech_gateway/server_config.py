"""What the server needs to know: `__main__` builds it from the settings. Pure."""

from dataclasses import dataclass

from speech_gateway.admission import Networks
from speech_gateway.messages import Limits


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where the server listens, whom it admits, and what a client may do.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes any free one.
        limits: What each session may do.
        fill_at_limit: Publish what fits of too long an utterance, instead of rejecting it.
        result_timeout: Seconds from `accepted` until the text must be there, if it is wanted.
        origin_allowlist: Exact origins; empty admits every one.
        trusted_proxies: Networks whose X-Forwarded-For is believed.
        max_audio_speed: How much audio an address may send, as a multiple of the pace of speech.
        utterances_at_once: How many whole utterances an address may send faster than that.
        handshake_timeout: Seconds for one whole opening handshake.
        close_timeout: Seconds that a client may put off the end of a closed connection.
    """

    host: str
    port: int
    limits: Limits
    fill_at_limit: bool = False
    result_timeout: float = 30.0
    origin_allowlist: frozenset[str] = frozenset()
    trusted_proxies: Networks = ()
    max_audio_speed: int = 20
    utterances_at_once: int = 10
    handshake_timeout: float = 5.0
    close_timeout: float = 2.0
