"""Show what is said and what becomes of it: to people, or as one JSON object a line.

What was asked for goes to stdout: receipts, or with `--results` the text and nothing else. All the
rest goes to stderr, the progress only where that is a terminal.
"""

import sys
from typing import Any

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from speech_lib.events import BYTES_PER_SECOND

from speech_tools.protocol.client import Frame
from speech_tools.stream.parts import Part, Trouble
from speech_tools.terminal import Terminal, complain, json_text

TOOL = "stream"


def seconds(count: int) -> str:
    """Return bytes of audio as seconds, for people."""
    return f"{count / BYTES_PER_SECOND:.1f} s"


class Screen:
    """The view of `sending`."""

    def __init__(self, total: int | None, *, as_json: bool, results: bool, verbose: bool) -> None:
        self._as_json = as_json
        self._results = results
        self._verbose = verbose
        self._total = f" of {seconds(total)}" if total is not None else ""
        self._stored = 0
        self._out = Terminal(soft_wrap=True)
        self._err = Terminal(soft_wrap=True, stderr=True)
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self._err,
            disable=not self._err.is_terminal,
            transient=True,
        )
        self._task = self.progress.add_task("connecting")

    def say(self, line: str) -> None:
        """Tell a person something, if one looks."""
        if self._err.is_terminal and not self._as_json:
            self._err.say(line)

    def frame(self, part: Part, frame: Frame) -> None:
        """Show a message of the gateway, with `--verbose`."""
        if self._verbose:
            complain(TOOL, f"{part.client_ref}: {json_text(frame)}")

    def sent(self, place: int) -> None:
        """Say how much is sent, and how much of it is stored."""
        told = f"sent {seconds(place)}{self._total}, stored {seconds(self._stored)}"
        self.progress.update(self._task, description=told)

    def stored(self, part: Part) -> None:
        """Show a receipt."""
        self._stored = part.end
        self.sent(part.end)
        if self._as_json:
            self._json(part.stored())
            return
        told = part.receipt or {}
        line = (
            f"{part.number:3}  {seconds(part.start)} to {seconds(part.end)} stored: "
            f"{told['topic']}[{told['partition']}] offset {told['offset']}, "
            f"id {told['correlation_id']}"
        )
        if part.doubled:
            line += f", perhaps twice (client_ref {part.client_ref})"
        (self._err if self._results else self._out).say(line)

    def heard(self, part: Part) -> None:
        """Show a text; where there is none the end says so."""
        if self._as_json:
            self._json(part.heard())
        elif part.text is not None:
            self._out.say(part.text or "(no speech)")

    def again(self, part: Part, trouble: Trouble, seconds: float) -> None:
        """Say why it is sent again, and when."""
        told = f"{trouble.line}; attempt {part.attempts + 1} in {seconds:.1f} s"
        complain(TOOL, told if part.number == 1 else f"utterance {part.number}: {told}")

    def failed(self, part: Part) -> None:
        """Show what was given up, in JSON; for people the last line says it."""
        if self._as_json:
            self._json(part.failed())

    def _json(self, told: dict[str, Any]) -> None:
        print(json_text(told), flush=True, file=sys.stdout)
