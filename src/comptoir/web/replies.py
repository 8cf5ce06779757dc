"""What every page is sent with: headers that forbid foreign content, and the server's own address."""

import re

from comptoir.dispatch import Core
from comptoir.kit.http import Reply, Request

SECURITY_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
VIEWER_HEADERS = tuple(
    (name, value.replace(b"img-src 'self'", b"img-src 'self' data:")) for name, value in SECURITY_HEADERS
)
"""For Swagger UI's page, whose style sheet holds its icons as ``data:`` pictures. Scripts and styles as elsewhere."""

WORK_HEADERS = tuple(
    (name, value.replace(b"img-src", b"media-src 'self'; img-src")) for name, value in SECURITY_HEADERS
)
"""For the page of jobs, which plays what they made: sound and film from here alone, and only in their own elements."""

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")


def secured(body: bytes, media: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """Return a page, or part of one, with the security headers."""
    return Reply(200, body, media=media, headers=SECURITY_HEADERS + headers)


def playing(body: bytes) -> Reply:
    """Return the page of jobs."""
    return Reply(200, body, media="text/html; charset=utf-8", headers=WORK_HEADERS)


def viewer(body: bytes) -> Reply:
    """Return the page of Swagger UI."""
    return Reply(200, body, media="text/html; charset=utf-8", headers=VIEWER_HEADERS)


def base_url(core: Core, request: Request) -> str:
    """Return the address at which the caller reached this server, without a trailing slash.

    The Host header is inserted into commands that people copy, so it is ignored unless it is just a name and a port.
    """
    if core.settings.public_url:
        return core.settings.public_url.rstrip("/")
    host = request.header(b"host")
    if not _HOST.fullmatch(host):
        host = f"{core.settings.host}:{core.settings.port}"
    return f"{request.scope.get('scheme', 'http')}://{host}"
