"""The recogniser's own environment variables; built once in `__main__`."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from speech_lib.service.config import ServiceSettings, inconsistent
from speech_lib.service.setting_types import Port, Text, Topic, choice, matching, whole

from speech_asr.cores import usable_cores
from speech_asr.engine import EngineChoice, EngineName

_MAX_WORKERS = 64
_MAX_GROUP_ID = 249

GroupId = Annotated[
    str,
    matching(
        f"1 to {_MAX_GROUP_ID} printable characters",
        lambda text: text.isprintable() and len(text) <= _MAX_GROUP_ID,
    ),
]


class AsrSettings(ServiceSettings):
    """What the recogniser reads from its environment."""

    asr_engine: Annotated[EngineName, choice(EngineName)] = Field(
        "pocketsphinx", alias="ASR_ENGINE"
    )
    """The recogniser; whisper needs the extra of the same name."""

    asr_model: Text | None = Field(None, alias="ASR_MODEL")
    """The model of whisper: a directory, or a name in the local cache; pocketsphinx has its own."""

    asr_workers: Annotated[int, whole(1, _MAX_WORKERS)] = Field(
        default_factory=usable_cores, alias="ASR_WORKERS"
    )
    """How many utterances are recognised at once, each in a process; the cores unless set."""

    asr_group_id: GroupId = Field("asr-service", alias="ASR_GROUP_ID")
    """Consumer group: its members share the utterances."""

    topic_dead_letter: Topic = Field("speech.audio.ingress.dlq", alias="TOPIC_DEAD_LETTER")
    """Topic of the records that cannot be processed."""

    ops_port: Port = Field(8002, alias="OPS_PORT")
    """The operations port (/livez, /readyz, /metrics)."""

    def engine(self) -> EngineChoice:
        """Return which engine to load, as a worker takes it."""
        return EngineChoice(self.asr_engine, self.asr_model)

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.asr_engine == "whisper" and self.asr_model is None:
            raise inconsistent("ASR_MODEL", "required with ASR_ENGINE=whisper, expected a model")
        if self.asr_engine == "pocketsphinx" and self.asr_model is not None:
            raise inconsistent("ASR_MODEL", "needs ASR_ENGINE=whisper; pocketsphinx has its own")
        return self

    @model_validator(mode="after")
    def _check_dead_letter(self) -> Self:
        if self.topic_dead_letter in {self.topic_audio_ingress, self.topic_asr_text}:
            raise inconsistent("TOPIC_DEAD_LETTER", "expected another topic than the two others")
        return self
