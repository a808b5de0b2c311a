"""`speech conformance`: hold any deployment to docs/protocol.md, from outside.

`command` reads the arguments, `run` runs the checks and gives the verdicts, `report` writes them.
The checks are in `connecting`, `utterances`, `endings` and `refusals`, and reach the gateway only
by `exchange`. The name of a check is the section of the document and the row or sentence in it.
"""
