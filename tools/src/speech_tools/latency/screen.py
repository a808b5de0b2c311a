"""What `speech latency` shows: a progress bar while it runs, and the report at its end."""

from types import TracebackType
from typing import Self

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from speech_tools.latency import report as latency_report
from speech_tools.latency.report import Report
from speech_tools.latency.run import Utterance
from speech_tools.terminal import Terminal

MIN_WIDTH = 110

_console = Terminal(soft_wrap=True)
_console.width = max(_console.width, MIN_WIDTH)


class Screen:
    """A progress bar with how many utterances came out as text, and how many did not."""

    def __init__(self, count: int) -> None:
        self._recognised = self._lost = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=_console,
            disable=not _console.is_terminal,
            refresh_per_second=2,  # drawing takes time from what is measured
        )
        self._task = self._progress.add_task(self._text(), total=count)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the bar as it is."""
        self._progress.stop()

    def ended(self, utterance: Utterance) -> None:
        """Count one utterance."""
        self._recognised += utterance.came_out
        self._lost += not utterance.came_out
        self._progress.update(self._task, description=self._text(), advance=1)

    def _text(self) -> str:
        return f"recognised {self._recognised}, lost {self._lost}"


def say(what: RenderableType) -> None:
    """Print something for people. A text becomes one line."""
    if isinstance(what, str):
        _console.say(what)
    else:
        _console.print(what)


def show(report: Report) -> None:
    """Print what has been measured, on what, and how slow it was."""
    if report.measured:
        say(latency_report.table(report))
    for line in latency_report.lines(report):
        say(line)
