"""The way to the terminal: no text of a gateway, a record or a broker reaches it unchecked.

Characters that are not printable could move the cursor, set the title, hide lines or forge them.
Every command prints through this module.
"""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from io import TextIOWrapper
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

MAX_LINE = 1_000
"""Characters of a line on stderr."""
_NOT_PRINTABLE = "\ufffd"


def printable(text: str) -> str:
    """Return `text` in one line, with a sign in place of each character that is not printable."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _NOT_PRINTABLE for each in text)


def complain(tool: str, line: str) -> None:
    """Say in one line on stderr what went wrong."""
    text = printable(line)
    cut = text if len(text) <= MAX_LINE else text[: MAX_LINE - 1] + "…"
    print(f"{tool}: {cut}", file=sys.stderr)


def say_lines(text: str) -> None:
    """Show several lines on stderr, such as the end of a log."""
    for line in text.splitlines():
        print(printable(line), file=sys.stderr)


def json_text(value: object, indent: int | None = None) -> str:
    """Return JSON in ASCII. NaN and infinity become null: JSON has no word for them."""
    return json.dumps(_finite(value), allow_nan=False, indent=indent)


def _finite(value: object) -> object:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {name: _finite(each) for name, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
        case _:
            return value


def survive_ascii() -> None:
    """Let a terminal that knows ASCII alone show a sign for every other character."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


class Terminal(Console):
    """A console that reads no markup, and lets nothing through that is not printable.

    The caller makes a text printable before its layout, by `say` or `printable`: only the caller
    knows where a line shall end.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - the console's own
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield what is to be written. The console itself adds only its own colours."""
        for segment in super().render(renderable, options):
            lines: Sequence[str] = segment.text.split("\n")
            if segment.control or all(line.isprintable() for line in lines):
                yield segment
            else:
                yield segment._replace(text="\n".join(map(printable, lines)))

    def say(self, text: str, style: Style | str = "") -> None:
        """Print one line."""
        self.print(Text(printable(text)), style=style)
