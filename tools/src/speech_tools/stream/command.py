"""`speech stream`: say a file, a pipe or a microphone to a gateway until all of it is stored.

The exit code says what to do next; `--help` lists the codes.
"""

import asyncio
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import typer

from speech_tools.command_line import (
    DEFAULT_URL,
    INTERRUPTED,
    ApiKey,
    GatewayUrl,
    exit_codes,
    fail,
    make_app,
)
from speech_tools.protocol import client
from speech_tools.protocol.audio import AudioError
from speech_tools.stream import options
from speech_tools.stream.parts import Part
from speech_tools.stream.screen import TOOL, Screen, seconds
from speech_tools.stream.sending import ATTEMPTS, Plan, Sender
from speech_tools.stream.sources import PIPE, Source, of_file, of_pipe
from speech_tools.verdict import Exit

EPILOG = exit_codes(
    {
        Exit.ACCEPTED: "accepted: all of it is stored",
        Exit.UNEXPECTED: "unexpected: what answers is not a gateway, or a defect",
        Exit.USAGE: "wrong usage: the options, the file, the URL, or no microphone",
        Exit.RETRY: "try again later: no connection, 503, 429, a retryable error, or nobody knows "
        "whether it is stored (then a second try may store it twice)",
        Exit.REFUSED: "refused for good: the same again gets the same answer",
        Exit.MISMATCH: "the receipt is not about the audio that was sent",
        Exit.CUT_SHORT: "accepted, but cut short: only the first part of it is stored",
        Exit.NO_TEXT: "accepted, but with --results no text came, or not all of it",
    },
    "A recording that is longer than the gateway takes is cut in pauses. Its utterances bear the "
    "client_ref NAME, NAME-2, NAME-3 and so on. What is not accepted is sent again under the same "
    "name: whoever reads the topics counts by it.",
    "Ctrl-C ends a microphone or a pipe, and what was said is still stored. A second one gives up.",
)
_complain = partial(fail, TOOL)


def judge(sender: Sender, *, results: bool) -> tuple[Exit, str]:
    """Return the exit code of all that was said, and a line that explains it."""
    stored = sum(part.receipt is not None for part in sender.parts)
    last = sender.parts[-1] if sender.parts else None
    if last is None:
        return Exit.USAGE, "there was no audio"
    if trouble := last.trouble:
        begun = f"only the first {seconds(last.start)} are stored: " if stored else ""
        fitting = trouble.exit if trouble.exit is Exit.MISMATCH or not stored else Exit.CUT_SHORT
        return fitting, f"{begun}{trouble.line}"
    silent = [part for part in sender.parts if results and part.text is None]
    if silent:
        why = silent[0].result or {"message": "the connection ended before its text"}
        code = f"{why['code']}: " if "code" in why else ""
        where = "" if stored == 1 else f"no text for {len(silent)} of {stored} utterances; "
        return Exit.NO_TEXT, f"stored; {where}{code}{why['message']}"
    many = "" if stored == 1 else f" in {stored} utterances"
    return Exit.ACCEPTED, f"{seconds(last.end)} stored{many}; each receipt matches what was sent"


def doubles(parts: list[Part]) -> str | None:
    """Return a line that names what may be stored twice, if anything may."""
    names = [part.client_ref for part in parts if part.doubled]
    if not names:
        return None
    return f"may be stored twice, count by client_ref: {', '.join(names)}"


def interrupted(sender: Sender) -> str:
    """Return a line that says what is stored, and what is not."""
    place = max((part.end for part in sender.parts if part.receipt), default=0)
    count = sum(part.receipt is not None for part in sender.parts)
    told = (
        f"the first {seconds(place)} are stored ({count} receipts)"
        if count
        else "nothing is stored"
    )
    last = sender.parts[-1] if sender.parts else None
    if last and last.receipt is None and (last.doubled or sender.said_all):
        return f"interrupted: {told}, and perhaps what follows (client_ref {last.client_ref})"
    return f"interrupted: {told}, and what follows is not"


def run(source: Source, plan: Plan, screen: Screen) -> int:
    """Say it; print, and return the exit code."""
    sender = Sender(plan, source.incoming(), screen)
    try:
        with screen.progress:
            asyncio.run(_say(source, sender))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _complain(INTERRUPTED, interrupted(sender))
    except AudioError as error:
        return _complain(Exit.USAGE, str(error))
    if line := doubles(sender.parts):
        _complain(0, line)
    code, line = judge(sender, results=plan.wanted.results)
    if code is not Exit.ACCEPTED:
        if sender.parts and sender.parts[-1].trouble:
            screen.failed(sender.parts[-1])
        return _complain(code, line)
    screen.say(line)
    return code


async def _say(source: Source, sender: Sender) -> None:
    with _ctrl_c(source, sender), source.listen(sender.incoming):
        await sender.run()


@contextmanager
def _ctrl_c(source: Source, sender: Sender) -> Iterator[None]:
    """Let the first Ctrl-C end what is live, and any other one give up."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - this runs in one

    def end() -> None:
        if source.recording is None and not sender.incoming.ended:
            sender.incoming.close()
        else:
            task.cancel()

    loop.add_signal_handler(signal.SIGINT, end)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _source(file: str | None, *, mic: bool) -> Source:
    if mic == (file is not None):
        raise AudioError("expected a FILE, - for a pipe, or --mic")
    if file is None:
        from speech_tools.stream.microphone import of_microphone  # noqa: PLC0415 - an extra

        return of_microphone()
    return of_pipe() if file == PIPE else of_file(Path(file))


app = make_app()


@app.command(epilog=EPILOG)
def main(  # noqa: PLR0913, PLR0917 - one for each option
    file: options.File = None,
    url: GatewayUrl = DEFAULT_URL,
    mic: options.Mic = False,  # noqa: FBT002 - how typer declares a switch
    as_json: options.AsJson = False,  # noqa: FBT002
    verbose: options.Verbose = False,  # noqa: FBT002
    fast: options.Fast = False,  # noqa: FBT002
    language: options.Language = None,
    results: options.Results = False,  # noqa: FBT002
    client_ref: options.ClientRef = None,
    attempts: options.Attempts = ATTEMPTS,
    api_key: ApiKey = None,
) -> None:
    """Speak to a gateway until all of it is stored.

    It takes a recording, a pipe or the microphone, of any length.
    """
    name = client_ref or uuid.uuid4().hex[:16]
    wanted = client.Wanted(language, results=results, client_ref=name, api_key=api_key)
    try:
        client.check_url(url, {})  # before the file is read and converted
        source = _source(file, mic=mic)
    except (AudioError, client.StreamError) as error:
        raise typer.Exit(_complain(Exit.USAGE, str(error))) from None
    recording = source.recording
    total = len(recording.pcm) if recording else None
    screen = Screen(total, as_json=as_json, results=results, verbose=verbose)
    screen.say(f"{source.what}; client_ref {name}")
    plan = Plan(url, wanted, paced=recording is not None and not fast, attempts=attempts)
    raise typer.Exit(run(source, plan, screen))
