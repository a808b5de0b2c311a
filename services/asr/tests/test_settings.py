"""What the recogniser takes from its environment, and what it says of the rest."""

from typing import get_args

import pytest
from speech_asr.cores import usable_cores
from speech_asr.engine import EngineChoice, ModelFamily
from speech_asr.settings import AsrSettings
from speech_lib.errors import ConfigError

FAMILIES = ", ".join(get_args(ModelFamily))
REQUIRED = {
    "KAFKA_BOOTSTRAP_SERVERS": "broker.example:9092",
    "SCHEMA_REGISTRY_URL": "http://registry.example:8081",
}


def load(**variables):
    return AsrSettings.load(REQUIRED | variables)


def line(**variables):
    with pytest.raises(ConfigError) as caught:
        load(**variables)
    return str(caught.value)


def test_the_defaults_fit_the_pipeline():
    """Nothing but the way to broker and registry has to be set."""
    settings = load()
    assert settings.engine() == EngineChoice("whisper", "tiny.en", ("models",))
    assert (settings.asr_workers, settings.asr_group_id, settings.ops_port) == (
        usable_cores(),
        "asr-service",
        8002,
    )
    assert (settings.topic_audio_ingress, settings.topic_asr_text, settings.topic_dead_letter) == (
        "speech.audio.ingress",
        "speech.asr.text",
        "speech.audio.ingress.dlq",
    )


def test_every_variable_is_taken():
    """Each of the service's own can be set."""
    settings = load(
        ASR_ENGINE="sherpa",
        ASR_MODEL="parakeet",
        ASR_MODELS_DIR="/models::/opt/models",
        ASR_MODEL_FAMILY="nemo_transducer",
        ASR_LANGUAGE="en-GB",
        ASR_WORKERS="3",
        ASR_GROUP_ID="another",
        TOPIC_DEAD_LETTER="dead",
        OPS_PORT="0",
    )
    folders = ("/models", "/opt/models")
    assert settings.engine() == EngineChoice(
        "sherpa", "parakeet", folders, "nemo_transducer", "en-GB"
    )
    assert (
        settings.asr_workers,
        settings.asr_group_id,
        settings.topic_dead_letter,
        settings.ops_port,
    ) == (3, "another", "dead", 0)


def test_the_engine_that_has_a_model_of_its_own_is_given_none():
    """A default of the others is nothing to it."""
    assert load(ASR_ENGINE="pocketsphinx").engine() == EngineChoice("pocketsphinx")


def test_an_empty_variable_is_not_set():
    """Compose passes on what a file leaves empty."""
    assert load(ASR_MODEL="", ASR_WORKERS="") == load()


@pytest.mark.parametrize("value", ["0", "-1", "65", "1.5", "inf", "nan", "many"])
def test_the_number_of_workers_is_bounded(value):
    """Neither none nor more than a machine bears."""
    shown = "" if value == "many" else f", got {value}"
    assert line(ASR_WORKERS=value) == f"ASR_WORKERS: expected a whole number from 1 to 64{shown}"


def test_an_unknown_engine_is_answered_with_those_that_there_are():
    """The line says what may be asked for."""
    assert line(ASR_ENGINE="sphinx4") == (
        "ASR_ENGINE: expected whisper or sherpa or pocketsphinx, got 'sphinx4'"
    )


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"ASR_ENGINE": "sherpa", "ASR_MODEL_FAMILY": "whisper"},
            "ASR_MODEL: required with ASR_ENGINE=sherpa, expected a model",
        ),
        (
            {"ASR_ENGINE": "sherpa", "ASR_MODEL": "parakeet"},
            f"ASR_MODEL_FAMILY: required with ASR_ENGINE=sherpa, expected one of {FAMILIES}",
        ),
        (
            {"ASR_ENGINE": "whisper", "ASR_MODEL_FAMILY": "whisper"},
            "ASR_MODEL_FAMILY: needs ASR_ENGINE=sherpa",
        ),
        (
            {"ASR_ENGINE": "pocketsphinx", "ASR_MODEL": "tiny.en"},
            "ASR_MODEL: needs another ASR_ENGINE; pocketsphinx has its own",
        ),
        (
            {"ASR_ENGINE": "pocketsphinx", "ASR_LANGUAGE": "de"},
            "ASR_LANGUAGE: needs another ASR_ENGINE; pocketsphinx has en-US",
        ),
        (
            {"TOPIC_DEAD_LETTER": "speech.asr.text"},
            "TOPIC_DEAD_LETTER: expected another topic than the two others",
        ),
        (
            {"TOPIC_DEAD_LETTER": "speech.audio.ingress"},
            "TOPIC_DEAD_LETTER: expected another topic than the two others",
        ),
    ],
    ids=[
        "no model",
        "no family",
        "family for nobody",
        "model for nobody",
        "language for nobody",
        "dead letters as texts",
        "dead letters as audio",
    ],
)
def test_variables_that_do_not_fit_each_other_are_told(variables, expected):
    """A dead letter on the input's topic would come round for ever."""
    assert line(**variables) == expected


@pytest.mark.parametrize("name", ["ASR_GROUP_ID", "TOPIC_DEAD_LETTER", "ASR_MODEL", "ASR_LANGUAGE"])
def test_a_wrong_text_is_named_and_not_told_back(name):
    """Where it came from may be a secret put into the wrong variable."""
    told = line(**{name: "s3cret\n" * 60})
    assert told.startswith(f"{name}: expected ")
    assert "s3cret" not in told
