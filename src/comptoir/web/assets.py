"""Style, scripts and picture of the page, under names that hold a hash of their content: cached for ever, never stale."""

import hashlib
from functools import cache
from pathlib import Path

import msgspec

FOLDER = Path(__file__).parent

FILES = {
    "page.css": ("static/page.css", "text/css; charset=utf-8"),
    "page.js": ("static/page.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("static/icon.svg", "image/svg+xml"),
    "htmx.js": ("vendor/htmx-2.0.11.min.js", "text/javascript; charset=utf-8"),
}
"""Public name: file and media type."""

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
    for public, (path, media) in FILES.items():
        body = (FOLDER / path).read_bytes()
        stem, _, suffix = public.rpartition(".")
        name = f"{stem}.{hashlib.sha256(body).hexdigest()[:HASH_CHARS]}.{suffix}"
        found[public] = found[name] = Asset(name, body, media)
    return found


def asset(name: str) -> Asset | None:
    """Return the asset with the hashed name *name*; a bare name is none, because it could not be cached."""
    found = _assets().get(name)
    return found if found is not None and found.name == name else None


def address(public: str) -> str:
    """Return the address of the asset *public*, for pages."""
    return f"/ui/{_assets()[public].name}"
