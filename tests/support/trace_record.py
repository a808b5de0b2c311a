"""The record of one utterance, as tests of what `speech trace` makes of records need it."""

from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord
from speech_tools.topics import Topics

ID = "0af76519-16cd-43dd-8448-eb211c80319c"
START_MS = 1_700_000_000_000
"""The handshake. Other times are milliseconds after it."""
TOPICS = Topics("audio", "text", "dead")
AUDIO = ReceivedRecord(
    "audio",
    3,
    42,
    ID.encode(),
    b"",
    {
        headers.CORRELATION_ID: ID,
        headers.ENDED_BY: "done",
        headers.HANDSHAKE_MS: str(START_MS),
        headers.FIRST_AUDIO_MS: str(START_MS + 100),
        headers.ENDED_MS: str(START_MS + 2_000),
    },
    START_MS + 2_010,
)
