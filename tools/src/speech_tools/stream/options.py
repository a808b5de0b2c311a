"""What `speech stream` takes on its command line."""

import re
from typing import Annotated

import typer

from speech_tools.stream.sending import ATTEMPTS

_CLIENT_REF = re.compile(r"[A-Za-z0-9._~-]{1,58}")  # and -99999 behind it: the protocol takes 64


def _client_ref(value: str) -> str:
    if not _CLIENT_REF.fullmatch(value):
        raise typer.BadParameter("expected 1 to 58 of A-Z a-z 0-9 . _ ~ -")
    return value


File = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE|-",
        help="WAV, FLAC, Ogg, MP3, or headerless PCM16, 16 kHz, mono; - is a pipe, live",
    ),
]
Mic = Annotated[bool, typer.Option("--mic", help="listen to the microphone, until Ctrl-C")]
AsJson = Annotated[
    bool, typer.Option("--json", help="print one JSON object for each receipt and each text")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="show each message of the gateway on stderr")
]
Fast = Annotated[
    bool, typer.Option("--fast", help="as fast as the gateway permits, not at real-time pace")
]
Language = Annotated[
    str | None, typer.Option(help="hint for the recogniser, a BCP 47 tag such as en-US")
]
Results = Annotated[bool, typer.Option("--results", help="print the text, as it comes")]
ClientRef = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        parser=_client_ref,
        help="your own name for it: 1 to 58 of A-Z a-z 0-9 . _ ~ -; by default a random one",
    ),
]
Attempts = Annotated[
    int, typer.Option(min=1, max=ATTEMPTS, help="how often to send an utterance at most")
]
