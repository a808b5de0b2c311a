"""The recogniser's own environment variables; built once in `__main__`."""

import os
import re
from typing import Annotated, Self, get_args

from pydantic import Field, model_validator
from speech_lib.service.config import ServiceSettings, inconsistent
from speech_lib.service.setting_types import Port, Text, choice, matching, whole

from speech_asr.cores import usable_cores
from speech_asr.engine import EngineChoice, EngineName, ModelFamily

WHISPER_MODEL = "tiny.en"
MODELS_DIR = "models"
"""Where `speech models fetch` puts them, too."""
_MAX_WORKERS = 64
_MAX_GROUP_ID = 249

GroupId = Annotated[
    str,
    matching(
        f"1 to {_MAX_GROUP_ID} printable characters",
        lambda text: text.isprintable() and len(text) <= _MAX_GROUP_ID,
    ),
]

Language = Annotated[
    str,
    matching(
        "a language as a BCP 47 tag, such as en or de-CH",
        re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,7}").fullmatch,
    ),
]


class AsrSettings(ServiceSettings):
    """What the recogniser reads from its environment."""

    asr_engine: Annotated[EngineName, choice(EngineName)] = Field("whisper", alias="ASR_ENGINE")
    """The recogniser; sherpa needs the extra of the same name."""

    asr_model: Text | None = Field(None, alias="ASR_MODEL")
    """The model: a directory, or a name in ASR_MODELS_DIR. Of whisper `tiny.en` unless set;
    pocketsphinx has its own."""

    asr_models_dir: Text = Field(MODELS_DIR, alias="ASR_MODELS_DIR")
    """Directories of models, with `:` between them; the first one that has the name wins."""

    asr_model_family: Annotated[ModelFamily, choice(ModelFamily)] | None = Field(
        None, alias="ASR_MODEL_FAMILY"
    )
    """What kind of model sherpa loads."""

    asr_language: Language | None = Field(None, alias="ASR_LANGUAGE")
    """The language to listen in; unset: the model's own, or detected."""

    asr_workers: Annotated[int, whole(1, _MAX_WORKERS)] = Field(
        default_factory=usable_cores, alias="ASR_WORKERS"
    )
    """How many utterances are recognised at once, each in a process; the cores unless set."""

    asr_group_id: GroupId = Field("asr-service", alias="ASR_GROUP_ID")
    """Consumer group: its members share the utterances."""

    ops_port: Port = Field(8002, alias="OPS_PORT")
    """The operations port (/livez, /readyz, /metrics)."""

    def engine(self) -> EngineChoice:
        """Return which engine to load, as a worker takes it."""
        if self.asr_engine == "pocketsphinx":
            return EngineChoice(self.asr_engine)
        return EngineChoice(
            self.asr_engine,
            self.asr_model or WHISPER_MODEL,
            tuple(filter(None, self.asr_models_dir.split(os.pathsep))),
            self.asr_model_family,
            self.asr_language,
        )

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        sherpa = self.asr_engine == "sherpa"
        if sherpa and self.asr_model is None:
            raise inconsistent("ASR_MODEL", "required with ASR_ENGINE=sherpa, expected a model")
        if sherpa and self.asr_model_family is None:
            families = ", ".join(get_args(ModelFamily))
            raise inconsistent(
                "ASR_MODEL_FAMILY", f"required with ASR_ENGINE=sherpa, expected one of {families}"
            )
        if not sherpa and self.asr_model_family is not None:
            raise inconsistent("ASR_MODEL_FAMILY", "needs ASR_ENGINE=sherpa")
        return self

    @model_validator(mode="after")
    def _check_pocketsphinx(self) -> Self:
        if self.asr_engine != "pocketsphinx":
            return self
        if self.asr_model is not None:
            raise inconsistent("ASR_MODEL", "needs another ASR_ENGINE; pocketsphinx has its own")
        if self.asr_language is not None:
            raise inconsistent("ASR_LANGUAGE", "needs another ASR_ENGINE; pocketsphinx has en-US")
        return self
