"""Types of environment variables: how each is read, and what its error line says it takes.

Pure. `config` and the settings of the services annotate their fields with these. An error line
shows a wrong value only if it is a number or an enumeration: others may be addresses or secrets.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from speech_lib.kafka.settings import is_server_list

_SHOWN_CHARACTERS = 20
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,255}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_MAX_PORT = 65535
_MAX_TEXT_CHARACTERS = 255


class Unreadable(ValueError):
    """A text is not of the expected kind; `shown` is the part of it that the error may show."""

    def __init__(self, shown: str = "") -> None:
        super().__init__(shown)
        self.shown = shown


@dataclass(frozen=True, slots=True)
class Reads:
    """Reads a variable by a function.

    Attributes:
        expected: What the variable takes, for the error line.
        parse: Returns the value of a text, or raises `Unreadable`.
    """

    expected: str
    parse: Callable[[str], Any]

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Have pydantic call `parse` before its own check of the type."""
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def _read(self, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value.strip())
        except Unreadable as error:
            raise wrong_value(self.expected, error.shown) from None


def wrong_value(expected: str, shown: str = "") -> PydanticCustomError:
    """Build the error for a value that is not what was `expected`."""
    got = f", got {shown[:_SHOWN_CHARACTERS]}" if shown else ""
    # Passed as context, because pydantic would take a brace in a template for a placeholder.
    return PydanticCustomError("setting", "{line}", {"line": f"expected {expected}{got}"})


def whole(minimum: int, maximum: int) -> Reads:
    """Read a whole number from `minimum` to `maximum`, both included.

    Not by pydantic's own `Field(ge=…, le=…)`: it takes "1_0" and "1.0" too.
    """

    def parse(text: str) -> int:
        shown = _shown_number(text)
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or not minimum <= int(text) <= maximum:
            raise Unreadable(shown)
        return int(text)

    return Reads(f"a whole number from {minimum} to {maximum}", parse)


def number(minimum: float, maximum: float) -> Reads:
    """Read a number from `minimum` to `maximum`, both included; never infinity or NaN."""

    def parse(text: str) -> float:
        shown = _shown_number(text)
        # NaN and infinity lie between no two numbers.
        if not shown or not minimum <= float(text) <= maximum:
            raise Unreadable(shown)
        return float(text)

    return Reads(f"a number from {minimum:g} to {maximum:g}", parse)


def _shown_number(text: str) -> str:
    """Return the text if it is any number at all, else nothing: only numbers are shown."""
    try:
        float(text)
    except ValueError:
        return ""
    return text if text.isascii() and "_" not in text else ""


def choice(literal: object) -> Reads:
    """Read one of the texts of a `Literal`, in upper or lower case."""
    allowed = {str(item).lower(): item for item in get_args(literal)}

    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise Unreadable(repr(text[:_SHOWN_CHARACTERS]))
        return str(allowed[text.lower()])

    return Reads(" or ".join(map(str, allowed.values())), parse)


def _switch(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise Unreadable(repr(text[:_SHOWN_CHARACTERS]))
    return text.lower() == "true"


def matching(expected: str, fits: Callable[[str], object]) -> Reads:
    """Read a text for which `fits` is true. The error line never shows it."""

    def parse(text: str) -> str:
        if not fits(text):
            raise Unreadable
        return text

    return Reads(expected, parse)


def comma_separated(text: str) -> tuple[str, ...]:
    """Split at commas; drop the spaces around the parts, and empty parts."""
    return tuple(item for item in (part.strip() for part in text.split(",")) if item)


def _is_http_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _is_short_line(text: str) -> bool:
    return text.isprintable() and len(text) <= _MAX_TEXT_CHARACTERS


def _is_topic(text: str) -> bool:
    return bool(_TOPIC.fullmatch(text)) and text not in {".", ".."}


LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat = Literal["json", "console"]
Environment = Literal["production", "development"]

Seconds = Annotated[float, number(0.1, 600)]
Count = Annotated[int, whole(1, 10_000)]
Port = Annotated[int, whole(0, _MAX_PORT)]
"""0 means any free port; the log line `listening` names it."""
Switch = Annotated[bool, Reads("true or false", _switch)]
ServerList = Annotated[str, matching("host:port, or several separated by commas", is_server_list)]
HttpUrl = Annotated[str, matching("an http:// or https:// URL", _is_http_url)]
Host = Annotated[str, matching("a host name or an IP address", _HOST.fullmatch)]
Topic = Annotated[str, matching("1 to 249 letters, digits, '.', '_' or '-'", _is_topic)]
Text = Annotated[str, matching("1 to 255 printable characters", _is_short_line)]
