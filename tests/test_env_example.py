"""`.env.example`: every variable that is read, with its default, and none that is not."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from speech_asr.settings import AsrSettings
from speech_gateway.settings import GatewaySettings
from speech_lib.service.config import EnvironmentSettings
from speech_lib.service.setting_types import Reads
from speech_lib.topics import TopicsEnvironment

ROOT = Path(__file__).parent.parent
EXAMPLE = (ROOT / ".env.example").read_text()
MAIN_FILE = (ROOT / "docker-compose.yml").read_text()
OVERRIDE = (ROOT / "docker-compose.override.yml").read_text()

SETTINGS = (GatewaySettings, AsrSettings, TopicsEnvironment)
SET_BY_THE_IMAGES = {"HOST", "PORT", "OPS_HOST", "OPS_PORT", "ASR_MODELS_DIR"}
OTHER_DEFAULTS = {
    # Compose names its own services.
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "SCHEMA_REGISTRY_URL": "http://schema-registry:8081",
    # Of the gateway; the recogniser's is told in the comment.
    "OPS_PORT": "8001",
    # As many as the machine has cores.
    "ASR_WORKERS": "",
}

READ_BY_COMPOSE = {"COMPOSE_FILE": "docker-compose.yml"}
"""With what production sets; unset, compose loads the developer's file, too."""

VARIABLE = re.compile(r"^#([A-Z][A-Z0-9_]+)=(.*)$", re.MULTILINE)
PASSED = re.compile(r"^ +([A-Z][A-Z0-9_]+): \$\{([A-Z][A-Z0-9_]+):-(.*)\}$", re.MULTILINE)
USED = re.compile(r"\$\{([A-Z][A-Z0-9_]+)(?::-([^}]*))?\}")


def variables_of(settings: type[EnvironmentSettings]) -> dict[str, str]:
    """Return the variables that a settings class reads, with their defaults as text."""
    defaults = {}
    for field in settings.model_fields.values():
        name = field.alias
        assert name
        defaults[name] = OTHER_DEFAULTS.get(name, as_text(field.default))
        if field.annotation == SecretStr | None:
            defaults[f"{name}_FILE"] = ""
    return defaults


def as_text(default: object) -> str:
    """Return a default as one would write it."""
    match default:
        case bool():
            return str(default).lower()
        case float():
            return f"{default:g}"
        case int() | str():
            return str(default)
        case _:
            assert not default or default is PydanticUndefined
            return ""


def all_variables() -> dict[str, str]:
    """Return what the services and the one-shot read."""
    return {name: default for each in SETTINGS for name, default in variables_of(each).items()}


def test_every_variable_is_there_with_its_default_and_no_other():
    """The example is what the settings classes and the compose files read."""
    compose = {
        name: default
        for name, default in USED.findall(MAIN_FILE + OVERRIDE)
        if name not in all_variables()
    }
    assert dict(VARIABLE.findall(EXAMPLE)) == all_variables() | compose | READ_BY_COMPOSE


def test_it_changes_nothing_as_it_is():
    """Everything is commented out, so that a copy of it is the same as none."""
    assert [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")] == []


def test_each_variable_is_told_once_and_explained():
    """A variable stands below a comment that says what it means."""
    names = [name for name, _ in VARIABLE.findall(EXAMPLE)]
    assert len(names) == len(set(names))
    blocks = [block for block in EXAMPLE.split("\n\n") if VARIABLE.search(block)]
    assert [block for block in blocks if not block.startswith("# ")] == []


def test_bounds_are_those_that_are_checked():
    """The comment above a number names its least and its largest value."""
    bounded = {
        field.alias: re.findall(r"[0-9.]+", read.expected)
        for each in SETTINGS
        for field in each.model_fields.values()
        for read in field.metadata
        if isinstance(read, Reads) and re.match(r"a (whole )?number from", read.expected)
    }
    told = {
        name: re.findall(r"(?<![\w.])[0-9.]*[0-9]", block.partition(f"#{name}=")[0])
        for block in EXAMPLE.split("\n\n")
        for name, _ in VARIABLE.findall(block)
    }
    assert {"MAX_CONNECTIONS": ["1", "10000"], "PORT": ["0", "65535"]}.items() <= bounded.items()
    assert [name for name, bounds in bounded.items() if not set(bounds) <= set(told[name])] == []


@pytest.mark.parametrize(
    ("service", "settings"),
    [
        ("topics", TopicsEnvironment),
        ("gateway-service", GatewaySettings),
        ("asr-service", AsrSettings),
    ],
)
def test_compose_passes_every_variable_through(service: str, settings: type[EnvironmentSettings]):
    """What stands in .env reaches the service, all but what its image fixes."""
    shared = MAIN_FILE.partition("x-pipeline:")[2].partition("\n\n")[0]
    block = MAIN_FILE.partition(f"\n  {service}:\n")[2]
    own = re.split(r"\n {2}[a-z]|\n[a-z]", block, maxsplit=1)[0]
    assert "*pipeline" in own
    passed = PASSED.findall(f"{shared}\n{own}")
    assert [name for name, source, _ in passed if name != source] == []
    names = {name for name, _, _ in passed}
    assert set(variables_of(settings)) - names == SET_BY_THE_IMAGES & set(variables_of(settings))
    assert names - set(all_variables()) == set()
