"""Show how a model comes in: a bar on a terminal, else one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from speech_tools.models.manifest import Model
from speech_tools.models.packages import OnBytes
from speech_tools.terminal import Terminal

MB = 1_000_000
errors = Terminal(stderr=True)


@contextmanager
def progress(model: Model) -> Iterator[OnBytes]:
    """Yield what to tell how many bytes are here; says nothing until it is told."""
    what = f"fetching {model.name} ({model.download_size / MB:.0f} MB)"
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=errors, disable=not errors.is_terminal, transient=True) as bar:
        tasks: list[TaskID] = []

        def on_bytes(count: int) -> None:
            if not tasks:
                tasks.append(bar.add_task(what, total=model.download_size))
                if not errors.is_terminal:
                    errors.say(what)
            bar.update(tasks[0], completed=count)

        yield on_bytes
