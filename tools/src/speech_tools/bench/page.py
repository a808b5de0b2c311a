"""The page that holds a result: its tables between two marks, and its picture beside it.

What people have written around the marks stays as it is.
"""

from collections.abc import Iterator
from pathlib import Path

from speech_tools.bench.result import Line, Result
from speech_tools.command_line import require_plots

BEGIN = "<!-- written by speech bench: begin -->"
END = "<!-- written by speech bench: end -->"
PICTURE = Path("images/performance.png")


class PageError(Exception):
    """A page has no place for the result. The text is the one line for the user."""


def check(file: Path) -> None:
    """Fail before the run where the page could not be written after it.

    Raises:
        PageError: It has no marks.
        ImportError: The picture cannot be drawn.
        OSError: The page cannot be read, or the picture has no folder.
    """
    _around(file)
    (file.parent / PICTURE.parent).mkdir(exist_ok=True)
    require_plots()


def write(file: Path, result: Result) -> None:
    """Replace what is between the marks, and draw the picture. Raises as `check` does."""
    from speech_tools.bench import chart  # noqa: PLC0415 - takes its time to load

    before, after = _around(file)
    body = "\n".join(markdown(result))
    file.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")
    chart.draw(file.parent / PICTURE, result)


def _around(file: Path) -> tuple[str, str]:
    text = file.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise PageError(
            f"{file}: has no place for the result: expected the lines {BEGIN} and {END}"
        )
    return before, after


def markdown(result: Result) -> Iterator[str]:
    """Yield the lines of the result. Pure."""
    yield f"Taken on {result.date[:10]}. {result.circumstances()}."
    for part, names, lines in result.parts():
        yield ""
        yield f"### {part.capitalize()}"
        yield ""
        yield _row([part, "", *names])
        yield _row(["---", "---", *("---:" for _ in names)])
        yield from (_row([line.case, line.subject, *_cells(line, names)]) for line in lines)
    yield ""
    yield f"![The ratios, the live streams, the receipt and the memory]({PICTURE})"


def _cells(line: Line, names: list[str]) -> Iterator[str]:
    return (str(line.figures[name]) if name in line.figures else "" for name in names)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
