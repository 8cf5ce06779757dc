"""The page's style, scripts and picture, under names with a hash of their content: cached for ever."""

import hashlib
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import msgspec

FOLDER = Path(__file__).parent
SWAGGER_UI = "flask-swagger-ui"
"""A wheel that follows each release of Swagger UI (Apache-2.0). Its files are read; it and Flask are never imported."""

MEDIA = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


def _files() -> dict[str, Path]:
    """Return the file of each public name."""
    viewer = Path(str(distribution(SWAGGER_UI).locate_file("flask_swagger_ui/dist")))
    return {
        "page.css": FOLDER / "static/page.css",
        "api.js": FOLDER / "static/api.js",
        "page.js": FOLDER / "static/page.js",
        "work.js": FOLDER / "static/work.js",
        "reference.css": FOLDER / "static/reference.css",
        "reference.js": FOLDER / "static/reference.js",
        "icon.svg": FOLDER / "static/icon.svg",
        "htmx.js": FOLDER / "vendor/htmx-2.0.11.min.js",
        "swagger-ui.css": viewer / "swagger-ui.css",
        "swagger-ui.js": viewer / "swagger-ui-bundle.js",
    }


HASH_CHARS = 12


class Asset(msgspec.Struct, frozen=True):
    """One file as it is served."""

    name: str
    """With its hash, for example ``page.0123456789ab.css``."""
    body: bytes
    media: str


@cache
def _assets() -> dict[str, Asset]:
    """Read every file once; return them by public name and by hashed name."""
    found = {}
    for public, path in _files().items():
        body = path.read_bytes()
        stem, _, suffix = public.rpartition(".")
        name = f"{stem}.{hashlib.sha256(body).hexdigest()[:HASH_CHARS]}.{suffix}"
        found[public] = found[name] = Asset(name, body, MEDIA[suffix])
    return found


def asset(name: str) -> Asset | None:
    """Return the asset with the hashed name *name*; a bare name is none, because it could not be cached."""
    found = _assets().get(name)
    return found if found is not None and found.name == name else None


def address(public: str) -> str:
    """Return the address of the asset *public*, for pages."""
    return f"/ui/{_assets()[public].name}"
