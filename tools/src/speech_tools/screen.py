"""Show one utterance while it is sent. Used by `speech demo`."""

import hashlib
import time
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from speech_lib.events import BYTES_PER_SECOND

from speech_tools.protocol.audio import Recording
from speech_tools.protocol.client import Hooks, Outcome
from speech_tools.terminal import Terminal, json_text


class Screen:
    """Show frames and progress."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._console = Terminal(soft_wrap=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.1f} / {task.total:.1f} s"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self.progress.add_task("sending", total=None)

    def expect(self, recording: Recording) -> None:
        """Say what is going to be sent."""
        self.progress.update(self._task, total=recording.seconds)
        self._console.say(f"{recording.seconds:.1f} s of audio ({recording.origin})")

    def sent(self, count: int) -> None:
        """Move the progress bar to `count` bytes."""
        self.progress.update(self._task, completed=count / BYTES_PER_SECOND)

    def frame(self, frame: dict[str, Any]) -> None:
        """Show a message as a client sees it."""
        self._line(json_text(frame))

    def closed(self, outcome: Outcome) -> None:
        """Show the close frame and what was sent."""
        digest = hashlib.sha256(outcome.sent).hexdigest()
        self._line(f"closed {outcome.close_code} {outcome.close_reason}")
        self._line(f"sent {len(outcome.sent)} bytes, sha256 {digest}")

    def hooks(self) -> Hooks:
        """Return what to hand to `client.stream`."""
        return Hooks(frame=self.frame, progress=self.sent)

    def _line(self, text: str) -> None:
        self._console.say(f"{time.monotonic() - self._started:7.3f} s  {text}")
