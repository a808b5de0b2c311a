"""Turn what `uv export` says of a service into a document to be given away; for scripts/sbom.

uv names each file by the address that it was found under, which is a matter of the machine's
package index. Here a file keeps its name and its hash, and only files that the lock permits are
left: an index may have got others for the same version since. The members of the workspace, whose
versions uv does not know before they are built, get those that are installed.
"""

import json
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Document = dict[str, Any]
"""A CycloneDX 1.5 document, or a part of one."""


def portable(document: Document, permitted: frozenset[str]) -> Document:
    """Return a document without addresses, and with a version for each component.

    Args:
        document: As uv exports it.
        permitted: SHA-256 of the files that may be installed, in hexadecimal digits.
    """
    metadata = document["metadata"]
    return document | {
        "metadata": metadata
        | {"component": _component(metadata["component"], "application", permitted)},
        "components": [_component(each, "library", permitted) for each in document["components"]],
    }


def _component(component: Document, kind: str, permitted: frozenset[str]) -> Document:
    dropped = {"properties", "externalReferences"}
    kept = {name: value for name, value in component.items() if name not in dropped}
    files = [
        _file(each)
        for each in component.get("externalReferences", [])
        if not permitted.isdisjoint(digest["content"] for digest in each["hashes"])
    ]
    return kept | {
        "type": kind,
        **_version(component),
        **({"externalReferences": files} if files else {}),
    }


def _version(component: Document) -> Document:
    """Return the version of a component, as installed where the document has none."""
    if "version" in component:
        return {"version": component["version"]}
    try:
        return {"version": version(component["name"])}
    except PackageNotFoundError:
        raise SystemExit(
            f"sbom: {component['name']}: no version, and it is not installed"
        ) from None


def _file(reference: Document) -> Document:
    return reference | {"url": reference["url"].rpartition("/")[2]}


if __name__ == "__main__":
    exported, lock = (Path(each).read_text() for each in sys.argv[1:])
    hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))
    json.dump(portable(json.loads(exported), hashes), sys.stdout, indent=2)
    sys.stdout.write("\n")
