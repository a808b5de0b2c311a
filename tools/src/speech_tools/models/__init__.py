"""Models for the recogniser: what there is, and how to have it on this machine.

`manifest` says what a model is made of, `packages` downloads what holds it, `fetching` makes its
directory, `checking` compares a directory with the manifest. These know the standard library alone,
so that the build of an image runs them without an environment: `python -m speech_tools.models`.
`command` is `speech models`.
"""
