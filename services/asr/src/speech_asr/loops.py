"""Tell a text that a model has lost itself in: no speaker says so much, or the same so often. Pure.

Used by `neural` and `whisper_engine`.
"""

import zlib

_CHARACTERS_A_SECOND = 30.0
"""Fast English has some 20."""
_SPARE_CHARACTERS = 20
"""A short word at the edge of a short piece is no loop."""
_COMPRESSION = 2.4
"""What repeats itself compresses better than speech does (Whisper's own bound)."""


def is_loop(text: str, seconds: float) -> bool:
    """Tell whether a text is too long for its audio, or repeats itself."""
    if len(text) > seconds * _CHARACTERS_A_SECOND + _SPARE_CHARACTERS:
        return True
    data = text.encode()
    return len(data) > _COMPRESSION * len(zlib.compress(data))
