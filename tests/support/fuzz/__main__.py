"""Fuzz one target by libFuzzer, led by the coverage of our own code: a child of its test.

    python -m support.fuzz MODULE TARGET [libFuzzer's options and corpora]

A process of its own, because libFuzzer ends the one that it runs in. `MODULE` has the `TARGETS`.
"""

import importlib
import sys

import atheris

INSTRUMENTED = ["speech_gateway", "speech_asr", "speech_lib", "wave"]
"""Where new branches make an input worth keeping."""

if __name__ == "__main__":
    program, module, name, *options = sys.argv
    with atheris.instrument_imports(include=[*INSTRUMENTED, module]):
        targets = importlib.import_module(module).TARGETS
    atheris.Setup([program, *options], targets[name].run)
    atheris.Fuzz()
