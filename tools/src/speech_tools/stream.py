"""`speech stream`: send a recording to a gateway as a client does, and show what a client sees.

The exit code says what to do next; `--help` lists the codes.
"""

import asyncio
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from speech_lib.events import BYTES_PER_SECOND

from speech_tools.command_line import DEFAULT_URL, GatewayUrl, exit_codes, fail, make_app
from speech_tools.protocol import client
from speech_tools.protocol.audio import AudioError, Recording, load
from speech_tools.screen import Screen
from speech_tools.terminal import Terminal


class Exit(IntEnum):
    """What the caller should do next."""

    ACCEPTED = 0
    UNEXPECTED = 1
    USAGE = 2
    RETRY = 3
    REFUSED = 4
    MISMATCH = 5
    CUT_SHORT = 6
    NO_TEXT = 7


EPILOG = exit_codes(
    {
        Exit.ACCEPTED: "accepted: all of the recording is stored",
        Exit.UNEXPECTED: "unexpected: what answers is not a gateway, or a defect",
        Exit.USAGE: "wrong usage: the options, the file, the URL, or a recording longer than the "
        "gateway takes",
        Exit.RETRY: "try again later: no connection, 503, 429, a retryable error, or nobody knows "
        "whether it is stored (then a second try may store it twice)",
        Exit.REFUSED: "refused for good: the same again gets the same answer",
        Exit.MISMATCH: "the receipt is not about the audio that was sent",
        Exit.CUT_SHORT: "accepted, but cut short: only the first part of the recording is stored",
        Exit.NO_TEXT: "accepted, but with --results no text came",
    }
)

_complain = partial(fail, "stream")


def judge(outcome: client.Outcome, recording: Recording) -> tuple[Exit, str]:
    """Return the exit code for a final message and one line that explains it."""
    final = outcome.final
    if final["status"] == "accepted":
        if not outcome.receipt_matches:
            return Exit.MISMATCH, "the receipt is not about the audio that was sent"
        if final["audio_bytes"] < len(recording.pcm):
            stored = final["audio_bytes"] / BYTES_PER_SECOND
            return Exit.CUT_SHORT, f"only the first {stored:.1f} s are stored: {final['ended_by']}"
        return Exit.ACCEPTED, "stored; the receipt matches what was sent"
    line = f"{final['code']}: {final['message']}"
    if final["stored"] == "unknown":
        return Exit.RETRY, f"{line}; it may be stored, a second try may store it twice"
    return (Exit.RETRY if final["retryable"] else Exit.REFUSED), line


def judge_error(error: client.StreamError) -> Exit:
    """Return the exit code for a stream without a final message."""
    match error:
        case client.WrongUrl() | client.TooLong():
            return Exit.USAGE
        case client.Unreachable():
            return Exit.RETRY
        case client.Refused():
            return Exit.RETRY if error.retryable else Exit.REFUSED
        case client.NoAnswer():
            return Exit.REFUSED if error.clients_fault else Exit.RETRY
        case _:
            return Exit.UNEXPECTED


def run(file: Path, url: str, wanted: client.Wanted, *, as_json: bool, fast: bool) -> Exit:
    """Stream `file`; print, and return the exit code."""
    screen = Screen(as_json=as_json)
    try:
        client.check_url(url, {})  # before the file is read and converted
        recording = load(file)
        screen.expect(recording)
        with screen.progress:
            outcome = asyncio.run(
                client.stream(
                    url, recording.pcm, paced=not fast, wanted=wanted, hooks=screen.hooks()
                )
            )
    except AudioError as error:
        return _complain(Exit.USAGE, str(error))
    except client.StreamError as error:
        return _complain(judge_error(error), str(error))
    screen.closed(outcome)
    code, line = judge(outcome, recording)
    if code is not Exit.ACCEPTED:
        return _complain(code, line)
    if not as_json:
        print(line)
    return _tell_text(outcome, wanted, as_json=as_json)


def _tell_text(outcome: client.Outcome, wanted: client.Wanted, *, as_json: bool) -> Exit:
    """Print the text of a stored utterance, and return the exit code."""
    result = outcome.result
    if not wanted.results:
        return Exit.ACCEPTED
    if result is None:
        return _complain(Exit.NO_TEXT, "stored; the connection ended before its text")
    if result["status"] == "error":
        return _complain(Exit.NO_TEXT, f"stored; {result['code']}: {result['message']}")
    if not as_json:
        Terminal(soft_wrap=True).say(result["text"] or "(no speech)")
    return Exit.ACCEPTED


app = make_app()


@app.command(epilog=EPILOG)
def main(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="WAV, FLAC, Ogg …, or headerless PCM16, 16 kHz, mono"),
    ],
    url: GatewayUrl = DEFAULT_URL,
    as_json: Annotated[  # noqa: FBT002 - how typer declares a switch
        bool, typer.Option("--json", help="print one JSON object a line, with times")
    ] = False,
    fast: Annotated[  # noqa: FBT002
        bool, typer.Option("--fast", help="as fast as the gateway permits, not at real-time pace")
    ] = False,
    language: Annotated[
        str | None, typer.Option(help="hint for the recogniser, a BCP 47 tag such as en-US")
    ] = None,
    results: Annotated[  # noqa: FBT002
        bool, typer.Option("--results", help="wait for the text, too")
    ] = False,
    client_ref: Annotated[
        str | None,
        typer.Option(help="your own name for it, on its records: 1 to 64 of A-Z a-z 0-9 . _ ~ -"),
    ] = None,
) -> None:
    """Send a recording to a gateway as a client does."""
    wanted = client.Wanted(language, results=results, client_ref=client_ref)
    raise typer.Exit(run(file, url, wanted, as_json=as_json, fast=fast))
