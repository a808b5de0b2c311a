"""Store records, however long the broker takes: nothing is committed before.

Used by `handler` for texts and for dead letters. While one waits, the service is not ready.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from speech_lib.errors import DeliveryError
from speech_lib.logs import get_logger
from speech_lib.records import Record, Stored
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
    """What stores a record (`speech_lib.producer.RecordProducer`)."""

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

        Raises:
            Unprocessable: The broker will never take it.
        """
        try:
            return await self._store(
                record, Condition.TEXTS, again=lambda error: not error.permanent
            )
        except DeliveryError as refusal:
            self._report(Condition.TEXTS, False, refusal.reason)
            raise Unprocessable(Reason.RESULT_REFUSED) from None

    async def store_dead_letter(self, record: Record, empty: Record) -> Stored:
        """Store a dead letter, or `empty` in its place where the broker finds it too large.

        A record that fills the limit of its topic, or is compressed beyond it, leaves no room to
        say why it is a dead letter; waiting would stop its partition for good. Any other refusal is
        waited out, as there is no other place to put it.
        """
        condition = Condition.DEAD_LETTERS
        try:
            return await self._store(
                record, condition, again=lambda error: error.reason not in _TOO_LARGE
            )
        except DeliveryError:
            return await self._store(empty, condition, again=lambda _: True)

    async def _store(
        self, record: Record, condition: Condition, again: Callable[[DeliveryError], bool]
    ) -> Stored:
        def complain(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            reason = getattr(error, "reason", "unknown")
            self._report(condition, False, reason)
            _log.warning("not_stored", what=condition.value, reason=reason)

        attempts = AsyncRetrying(
            retry=retry_if_exception(lambda e: isinstance(e, DeliveryError) and again(e)),
            wait=wait_exponential(_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS),
            before_sleep=complain,
            reraise=True,
        )
        stored: Stored = await attempts(self._sender.send, record)
        self._report(condition, True, "")
        return stored
