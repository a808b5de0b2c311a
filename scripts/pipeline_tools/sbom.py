"""Turn what `uv export` says of a service into a document to be given away; for scripts/sbom.

uv names each file by the address that it was found under, which is a matter of the machine's
package index. Here a file keeps its name and its hash. The members of the workspace, whose versions
uv does not know before they are built, get those that are installed.
"""

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Document = dict[str, Any]
"""A CycloneDX 1.5 document, or a part of one."""


def portable(document: Document) -> Document:
    """Return a document without addresses, and with a version for each component."""
    metadata = document["metadata"]
    return document | {
        "metadata": metadata | {"component": _component(metadata["component"], "application")},
        "components": [_component(each, "library") for each in document["components"]],
    }


def _component(component: Document, kind: str) -> Document:
    kept = {name: value for name, value in component.items() if name != "properties"}
    files = [_file(each) for each in component.get("externalReferences", [])]
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
    json.dump(portable(json.loads(Path(sys.argv[1]).read_text())), sys.stdout, indent=2)
    sys.stdout.write("\n")
