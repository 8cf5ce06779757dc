"""Small packages of the tests' own, and an index of them that an owner may name to uv: nothing is fetched."""

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def wheel(
    folder: Path, name: str, version: str, files: Mapping[str, str], *, requires: Sequence[str] = (), extra: str = ""
) -> Path:
    """Make a wheel."""
    dist = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    whole = dict(files) | {
        f"{dist}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}{extra}",
        f"{dist}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for inner, text in whole.items():
            archive.writestr(inner, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{inner},sha256={digest},{len(text.encode())}\n"
        archive.writestr(f"{dist}/RECORD", f"{record}{dist}/RECORD,,\n")
    return path


def source(folder: Path, name: str, version: str, backend: str) -> Path:
    """Make a source distribution that builds itself by *backend*, the text of a module of its own."""
    path = folder / f"{name}-{version}.tar.gz"
    project = (
        f'[project]\nname = "{name}"\nversion = "{version}"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    info = f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n"
    with tarfile.open(path, "w:gz") as archive:
        for inner, text in {"pyproject.toml": project, "backend.py": backend, "PKG-INFO": info}.items():
            facts = tarfile.TarInfo(f"{name}-{version}/{inner}")
            facts.size = len(text.encode())
            archive.addfile(facts, io.BytesIO(text.encode()))
    return path


def simple(folder: Path) -> Path:
    """Move the packages in *folder* into an index below it."""
    top = folder / "simple"
    for path in [each for each in folder.iterdir() if each.is_file()]:
        place = top / path.name.split("-")[0]
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / path.name)
        links = [f'<a href="{each.name}">{each.name}</a>' for each in place.iterdir() if each.name != "index.html"]
        (place / "index.html").write_text(f"<html><body>{''.join(links)}</body></html>")
    return top
