"""`python -m speech_tools` is the command `speech`."""

from speech_tools.cli import main

main()
