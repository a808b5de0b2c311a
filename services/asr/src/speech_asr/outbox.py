"""Store records, however long the broker takes: nothing is committed before.

Used by `handler` for texts and for dead letters. While one waits, the service is not ready.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from speech_lib.errors import DeliveryError
from speech_lib.kafka.records import Record, Stored
from speech_lib.service.logs import get_logger
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential

from speech_asr.errors import Reason, Unprocessable

Report = Callable[[str, bool, str], None]
"""Takes a condition of readiness: its name, whether it holds, and why not."""

_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 5.0
_TOO_LARGE = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"})
_log = get_logger(__name__)


class Condition(StrEnum):
    """What of this module the readiness depends on."""

    TEXTS = "texts"
    """Texts can be stored."""
    DEAD_LETTERS = "dead_letters"
    """Dead letters can be stored."""


class Sender(Protocol):
    """What stores a record (`speech_lib.kafka.producer.RecordProducer`)."""

    async def send(self, record: Record) -> Stored:
        """Store one record or raise `DeliveryError`."""
        ...


class Outbox:
    """Stores records for as many as want to, each until the broker has it.

    Args:
        sender: What stores them.
        report: Told whenever a `Condition` is known anew.
    """

    def __init__(self, sender: Sender, report: Report) -> None:
        self._sender = sender
        self._report = report

    async def store_text(self, record: Record) -> Stored:
        """Store a text; return where, when the broker has it.

        A topic that may not be written is waited for: the next text would fare no better.

        Raises:
            Unprocessable: The broker will never take this text.
        """
        try:
            return await self._store(record, Condition.TEXTS)
        except DeliveryError:
            self._report(Condition.TEXTS, True, "")  # nothing waits
            raise Unprocessable(Reason.RESULT_REFUSED) from None

    async def store_dead_letter(self, record: Record, empty: Callable[[str], Record]) -> Stored:
        """Store a dead letter, or one that is empty where the broker refuses it.

        Args:
            record: The dead letter.
            empty: Makes one without content; takes why, `too_large` or `refused`.

        A record that fills the limit of its topic, or is compressed beyond it, leaves no room to
        say why it is a dead letter; waiting would stop its partition for good. What is refused
        without content too, and a topic that may not be written, is waited for, as there is no
        other place to put it.
        """
        try:
            return await self._store(record, Condition.DEAD_LETTERS)
        except DeliveryError as refusal:
            why = "too_large" if refusal.reason in _TOO_LARGE else "refused"
            return await self._store(empty(why), Condition.DEAD_LETTERS, for_ever=True)

    async def _store(
        self, record: Record, condition: Condition, *, for_ever: bool = False
    ) -> Stored:
        """Try until the record is stored or, unless `for_ever`, is refused itself."""

        def complain(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            reason = getattr(error, "reason", "unknown")
            self._report(condition, False, reason)
            _log.warning("not_stored", what=condition.value, reason=reason)

        attempts = AsyncRetrying(
            retry=retry_if_exception(
                lambda error: (
                    isinstance(error, DeliveryError) and (for_ever or error.refused != "record")
                )
            ),
            wait=wait_exponential(_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS),
            before_sleep=complain,
            reraise=True,
        )
        stored: Stored = await attempts(self._sender.send, record)
        self._report(condition, True, "")
        return stored
