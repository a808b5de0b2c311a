"""Schemas of others, and whether a few bytes of theirs may cost much."""

import json
from io import BytesIO

import fastavro
import pytest
from speech_lib.errors import WrongSchema
from speech_lib.events import AudioInput, AudioInputEvent, codec
from speech_lib.events.schemas import schema_text
from speech_lib.events.writer_schema import MAX_SCHEMA_CHARACTERS, is_affordable

EVENT = AudioInputEvent.new(
    correlation_id="9b2d6d0c-7c0e-4d8e-8f5e-3b7c2d1a0f42",
    source_service="gateway",
    payload=AudioInput(b"RIFF"),
)
DEEP = {
    "type": "record",
    "name": "Deep",
    "fields": [{"name": "more", "type": ["null", "Deep"], "default": None}],
}


def names_within_names(kinds, uses):
    """Return fields whose types hold the one before, so many times: small to write, by names."""
    return [
        {
            "name": f"f{number}",
            "type": {
                "type": "record",
                "name": f"R{number}",
                "fields": [
                    {"name": f"n{use}", "type": f"R{number - 1}" if number else "int"}
                    for use in range(uses)
                ],
            },
        }
        for number in range(kinds)
    ]


def within(levels):
    """Return the schema of an utterance with a record in a record, as text: too deep for `json`."""
    kind = '"int"'
    for level in range(levels):
        kind = f'{{"type":"record","name":"I{level}","fields":[{{"name":"a","type":{kind}}}]}}'
    schema = json.dumps(with_field("placeholder"))
    return schema.replace('"placeholder"', kind)


def with_field(kind):
    """Return the schema of an utterance with one field more."""
    schema = schema_of_ours()
    schema["fields"].append({"name": "more", "type": kind})
    return schema


COSTLY = {
    "an array": ({"type": "array", "items": "null"}, [None] * 3),
    "a map": ({"type": "map", "values": "int"}, {"a": 1}),
    "a type within itself": (DEEP, {"more": {"more": None}}),
    "nothing": ("null", None),
    "a record of nothing": ({"type": "record", "name": "Empty", "fields": []}, {}),
    "a record of nothing much": (
        {"type": "record", "name": "Nulls", "fields": [{"name": "a", "type": "null"}]},
        {"a": None},
    ),
    "no bytes": ({"type": "fixed", "name": "Zero", "size": 0}, b""),
    "a number of many digits": (
        {"type": "bytes", "logicalType": "decimal", "precision": 9},
        b"\1",
    ),
    "an array in a union": (["null", {"type": "array", "items": "int"}], [1]),
}
CHEAP = {
    "a text": ("string", "a"),
    "nothing or a number": (["null", "double"], None),
    "one of some": ({"type": "enum", "name": "Kind", "symbols": ["A"]}, "A"),
    "some bytes": ({"type": "fixed", "name": "Four", "size": 4}, b"abcd"),
    "a time": ({"type": "long", "logicalType": "timestamp-millis"}, 0),
    "a record twice": (
        {
            "type": "record",
            "name": "Pair",
            "fields": [
                {
                    "name": "a",
                    "type": {
                        "type": "record",
                        "name": "One",
                        "fields": [{"name": "n", "type": "int"}],
                    },
                },
                {"name": "b", "type": "One"},
            ],
        },
        {"a": {"n": 1}, "b": {"n": 2}},
    ),
}


def schema_of_ours():
    """Return the schema of an utterance."""
    return json.loads(schema_text("AudioInputEvent"))


def written(schema, more):
    """Return the value of an utterance with something more in it."""
    out = BytesIO()
    fastavro.schemaless_writer(
        out, fastavro.parse_schema(schema), EVENT.to_record() | {"more": more}
    )
    return b"\0\0\0\0\7" + out.getvalue()


@pytest.mark.parametrize("kind", COSTLY)
def test_a_type_that_may_cost_more_than_its_bytes_is_not_read(kind):
    """Whatever the value: a count of a few bytes could keep a recogniser busy for hours."""
    schema, more = COSTLY[kind]
    extended = with_field(schema)
    value = written(extended, more)
    with pytest.raises(WrongSchema):
        codec.decode(AudioInputEvent, value, json.dumps(extended))


WIDE = {
    "a field too many": [{"name": f"x{number}", "type": "int"} for number in range(1_000)],
    "twice the one before, 26 times": names_within_names(26, 2),
    "as deep as the schema's length permits": names_within_names(550, 1),
}


@pytest.mark.parametrize("kind", WIDE)
def test_a_schema_of_more_values_than_a_thousand_is_not_read(kind):
    """Two millions of them in a record hold the recogniser for a second, some more for minutes."""
    schema = schema_of_ours()
    schema["fields"] += WIDE[kind]
    text = json.dumps(schema)
    assert len(text) < MAX_SCHEMA_CHARACTERS
    with pytest.raises(WrongSchema):
        codec.decode(AudioInputEvent, written(schema_of_ours(), None) + bytes(2_000_000), text)


@pytest.mark.parametrize("levels", [100, 320, 30_000])
def test_a_schema_that_is_too_deep_is_refused_as_such(levels):
    """However deep: it is a wrong schema, never a defect of the reader."""
    with pytest.raises(WrongSchema):
        codec.decode(AudioInputEvent, written(schema_of_ours(), None), within(levels))


def test_a_schema_longer_than_any_version_of_ours_is_not_even_parsed():
    """Parsing takes some of them hours."""
    schema = with_field("int") | {"doc": "x" * MAX_SCHEMA_CHARACTERS}
    with pytest.raises(WrongSchema, match="too long"):
        codec.decode(AudioInputEvent, written(with_field("int"), 1), json.dumps(schema))


@pytest.mark.parametrize("kind", CHEAP)
def test_a_later_version_with_ordinary_types_is_read(kind):
    """Its new field is passed over."""
    schema, more = CHEAP[kind]
    extended = with_field(schema)
    value = written(extended, more)
    assert codec.decode(AudioInputEvent, value, json.dumps(extended)) == EVENT


@pytest.mark.parametrize("event_type", ["AudioInputEvent", "TextRecognizedEvent"])
def test_our_own_schemas_are_affordable(event_type):
    """As fastavro parses them."""
    assert is_affordable(fastavro.parse_schema(json.loads(schema_text(event_type))))
