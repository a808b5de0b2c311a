"""The state of a schema registry: subjects, versions, ids, and which schema may follow which.

Pure. `registry_server` puts it behind HTTP. Answers and error codes are those of the Confluent
Schema Registry: https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

import json
from dataclasses import dataclass, field
from typing import Any

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException
from avro.schema import Schema, parse

_LEVELS = ("NONE", "BACKWARD", "BACKWARD_TRANSITIVE")
_MAX_ID = 2**31 - 1


class RegistryError(Exception):
    """An answer other than 200: the HTTP status, the registry's code, and a sentence."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(slots=True)
class SchemaStore:
    """All subjects of one registry; ids begin at 1 and are shared by equal schemas."""

    _texts: list[str] = field(default_factory=list)
    _subjects: dict[str, list[int]] = field(default_factory=dict)
    _levels: dict[str, str] = field(default_factory=dict)
    _default_level: str = "BACKWARD"

    def register(self, subject: str, text: object) -> int:
        """Add a schema as the subject's next version, unless it has it, and return its id."""
        canonical, schema = _parsed(text)
        ids = self._subjects.get(subject, [])
        if canonical in self._texts and self._texts.index(canonical) + 1 in ids:
            return self._texts.index(canonical) + 1
        self._check_compatible(subject, schema)
        if canonical not in self._texts:
            self._texts.append(canonical)
        schema_id = self._texts.index(canonical) + 1
        self._subjects.setdefault(subject, []).append(schema_id)
        return schema_id

    def lookup(self, subject: str, text: object) -> dict[str, Any]:
        """Return the version of a subject that has this schema."""
        ids = self._ids(subject)
        canonical, _ = _parsed(text)
        for version, schema_id in enumerate(ids, start=1):
            if self._texts[schema_id - 1] == canonical:
                return self._version(subject, version)
        raise RegistryError(404, 40403, "Schema not found")

    def schema(self, schema_id: str) -> str:
        """Return the text of a schema."""
        if not schema_id.isdecimal() or not 0 < int(schema_id) <= len(self._texts):
            raise RegistryError(404, 40403, "Schema not found")
        return self._texts[int(schema_id) - 1]

    def subjects(self) -> list[str]:
        """Return the names of all subjects."""
        return sorted(self._subjects)

    def versions(self, subject: str) -> list[int]:
        """Return the numbers of a subject's versions."""
        return list(range(1, len(self._ids(subject)) + 1))

    def version(self, subject: str, version: str) -> dict[str, Any]:
        """Return one version of a subject; `latest` is the newest."""
        newest = len(self._ids(subject))
        if version == "latest":
            return self._version(subject, newest)
        if not version.isdecimal() or not 0 < int(version) <= _MAX_ID:
            raise RegistryError(422, 42202, "The specified version is not a valid version id")
        if int(version) > newest:
            raise RegistryError(404, 40402, "Version not found")
        return self._version(subject, int(version))

    def level(self, subject: str | None) -> str:
        """Return the compatibility level of a subject, or the one of all others."""
        if subject is None:
            return self._default_level
        if subject not in self._levels:
            raise RegistryError(404, 40408, "Subject does not have its own compatibility level")
        return self._levels[subject]

    def set_level(self, subject: str | None, level: object) -> str:
        """Set the compatibility level of a subject, or the one of all others."""
        if not isinstance(level, str) or level.upper() not in _LEVELS:
            raise RegistryError(422, 42203, f"Invalid compatibility level, expected {_LEVELS}")
        if subject is None:
            self._default_level = level.upper()
        else:
            self._levels[subject] = level.upper()
        return level.upper()

    def _ids(self, subject: str) -> list[int]:
        if subject not in self._subjects:
            raise RegistryError(404, 40401, f"Subject '{subject}' not found.")
        return self._subjects[subject]

    def _version(self, subject: str, version: int) -> dict[str, Any]:
        schema_id = self._subjects[subject][version - 1]
        return {
            "subject": subject,
            "id": schema_id,
            "version": version,
            "schemaType": "AVRO",
            "schema": self._texts[schema_id - 1],
        }

    def _check_compatible(self, subject: str, new: Schema) -> None:
        """Refuse a schema that cannot read the records of older ones."""
        level = self._levels.get(subject, self._default_level)
        older = self._subjects.get(subject, [])
        checked = {"NONE": [], "BACKWARD": older[-1:], "BACKWARD_TRANSITIVE": older}[level]
        for schema_id in checked:
            writer = parse(self._texts[schema_id - 1])
            if problems := _unreadable(new, writer):
                raise RegistryError(409, 409, f"Schema is not {level} compatible: {problems}")


def _unreadable(reader: Schema, writer: Schema) -> str:
    """Return why records of `writer` cannot be read as `reader`; empty where they can."""
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(reader=reader, writer=writer)
    if result.compatibility is SchemaCompatibilityType.compatible:
        return ""
    return "; ".join(sorted(result.messages)) or "other types"


def _parsed(text: object) -> tuple[str, Schema]:
    """Return a schema without its white space, and the schema."""
    if not isinstance(text, str) or not text:
        raise RegistryError(422, 42201, "Empty schema")
    try:
        schema = parse(text)
        return json.dumps(json.loads(text), separators=(",", ":")), schema
    except (AvroException, ValueError, RecursionError) as error:
        raise RegistryError(422, 42201, f"Invalid schema: {type(error).__name__}") from error
