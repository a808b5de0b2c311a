"""Read a record's value for what that may do to the process; run in one of its own.

Named by `__main__`. `speech_lib.kafka.consuming.isolated_read` calls it where a partition's last
reader was killed.
"""

from contextlib import closing

from speech_lib.events import AudioInputEvent
from speech_lib.kafka.registry import EventDeserializer, SchemaRegistry

from speech_asr import intake


def read(registry_url: str, value: bytes) -> None:
    """Do all that `intake.read` does. Blocks for the registry.

    Raises:
        Exception: As `intake.read`, which says nothing here.
    """
    with closing(SchemaRegistry(registry_url)) as registry:
        intake.read(EventDeserializer(registry, AudioInputEvent), value)
