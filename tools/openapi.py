"""Write openapi/<dialect>.json from the declarations of every dialect: ``make openapi``."""

import sys
from pathlib import Path

from comptoir import __version__
from comptoir.dialects import DIALECTS
from comptoir.kit.http import document_bytes

FOLDER = Path(__file__).parent.parent / "openapi"


def main() -> int:
    """Write what changed, remove what is no dialect's any more, and say so."""
    documents = {f"{dialect.name}.json": document_bytes(dialect, version=__version__) for dialect in DIALECTS}
    for file in FOLDER.glob("*.json"):
        if file.name not in documents:
            file.unlink()
            print(f"removed {file.name}")
    for name, document in documents.items():
        file = FOLDER / name
        if not file.exists() or file.read_bytes() != document:
            file.write_bytes(document)
            print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
