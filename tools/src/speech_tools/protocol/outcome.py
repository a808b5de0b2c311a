"""What a client asks for, sees on the way, and knows in the end of one utterance. Used by `client`.

Pure. Callers take these names from `client`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from speech_tools.protocol.messages import Frame


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an utterance ended.

    Attributes:
        final: `accepted`, or the `error` that says that the utterance is not known to be stored.
        sent: the samples that were handed to the connection, a prefix of the recording.
        complete: whether all of it, and `done`, were sent.
        close_code: of the close frame.
        close_reason: of the close frame.
        result: `recognized`, or the `error` in its place; nothing where no text was asked for, or
            the connection ended before.
    """

    final: Frame
    sent: bytes = field(repr=False)
    complete: bool
    close_code: int
    close_reason: str
    result: Frame | None = None

    @property
    def receipt_matches(self) -> bool:
        """Whether the receipt is about the very samples that were sent, or the first of them."""
        return is_receipt_for(self.final, self.sent)


def is_receipt_for(accepted: Frame, sent: bytes) -> bool:
    """Tell whether a receipt is about the first samples of what was sent, and about some."""
    stored = sent[: accepted["audio_bytes"]]
    return (len(stored), hashlib.sha256(stored).hexdigest()) == (
        accepted["audio_bytes"],
        accepted["sha256"],
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask of the gateway.

    Attributes:
        language: BCP 47 tag, a hint for whoever recognises.
        results: wait for the text, too.
        client_ref: the client's own name for what it says, the same on every attempt.
        discard: have the gateway store nothing where the connection breaks.
        api_key: what an edge before the gateway asks for.
    """

    language: str | None = None
    results: bool = False
    client_ref: str | None = None
    discard: bool = False
    api_key: str | None = field(default=None, repr=False)

    def headers(self) -> dict[str, str]:
        """Return the headers of the request."""
        return {"X-API-Key": self.api_key} if self.api_key else {}

    def query(self) -> dict[str, str | None]:
        """Return the parameters of the URL."""
        return {
            "language": self.language,
            "results": "text" if self.results else None,
            "client_ref": self.client_ref,
            "on_disconnect": "discard" if self.discard else None,
        }


NOTHING_MORE = Wanted()


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the caller wants to see while it happens. Called on the event loop: must be quick.

    Attributes:
        frame: a message from the gateway, as it arrives.
        progress: how many bytes of audio have been sent so far.
    """

    frame: Callable[[Frame], None] = lambda _frame: None
    progress: Callable[[int], None] = lambda _bytes: None
