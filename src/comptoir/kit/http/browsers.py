"""Requests that browsers send for pages of other origins, and the names by which this server is reached.

A browser sends a page's requests from the user's machine: to a server on loopback, from inside the network, past every
address check. So a request for a foreign page needs a key and an origin that the operator allows; a body without a key
has to be declared as JSON, which a foreign page can't do without a CORS preflight; and a server on loopback answers
only to its own names, against DNS rebinding.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from comptoir.kit.errors import Refusal
from comptoir.kit.http.request import Request, Sender

BROWSER_HEADERS = frozenset((b"origin", b"sec-fetch-site"))
"""What browsers add to every request of a page that matters here; programs send neither."""

DECIDING = frozenset(
    (
        b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"content-type", b"authorization",
        b"x-api-key", b"x-admin-key", b"idempotency-key",
    )
)  # fmt: skip
"""Headers that determine caller, origin and target: if one came twice, two readers could use different ones."""

OWN_SITES = frozenset((b"same-origin", b"none"))
"""``Sec-Fetch-Site`` of our own pages and of typed addresses. ``same-site`` is foreign: another port of loopback."""

ANY = "*"
HOST_SHOWN = 100
"""Characters of a Host header that are repeated in its refusal."""
NAMES_REMEMBERED = 256
"""Host headers whose parsed form is cached."""


class ForeignPage(Refusal):
    """A browser sent the request for a page of another origin, which may request nothing here without a key."""


class WrongName(Refusal):
    """The Host header names a server that this one is not (`server_names`)."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"this server is not called {host[:HOST_SHOWN]!r}; if a proxy passes this name on, add it to the setting server_names"
        )
        self.host = host


class RepeatedHeader(Refusal):
    """A header that determines the caller or the target came twice."""

    def __init__(self, header: str) -> None:
        super().__init__(f"the header {header} came twice; send it once")
        self.header = header


class NotDeclaredJson(Refusal):
    """A body came without a key and is not declared as JSON."""

    def __init__(self) -> None:
        super().__init__("without a key a body needs 'Content-Type: application/json'")


def refuse_repeated(headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse a request of which a header came twice that determines caller, origin or target.

    Raises:
        RepeatedHeader: one of those did.
    """
    names = [name for name, _ in headers if name in DECIDING]
    for name in names:
        if names.count(name) > 1:
            raise RepeatedHeader(name.decode())


class BrowserPolicy:
    """Recognises requests that browsers send for foreign pages, and refuses those that such pages may not make."""

    def __init__(
        self, *, origins: tuple[str, ...] = (), own_origin: str = "", names: frozenset[str] | None = None
    ) -> None:
        """Set what is allowed.

        Args:
            origins: pages of these origins may call with a key; ``*`` is every page.
            own_origin: where people reach this server, beside the request's Host.
            names: names of this server in lower case, beside those of loopback; None: any.
        """
        self._origins = frozenset(origin.rstrip("/").lower().encode() for origin in origins)
        self._own = own_origin.lower().encode()
        self._names = names
        self._known = lru_cache(NAMES_REMEMBERED)(self._is_ours)

    def judge(self, request: Request) -> None:
        """Set `Request.sender`; called before the gate, for every path and method.

        Raises:
            WrongName, ForeignPage: in the order they are checked.
        """
        given = request.headers
        if self._names is not None and b"host" in given and not self._known(host := given[b"host"]):
            raise WrongName(host.decode("latin-1"))
        if b"origin" in given or b"sec-fetch-site" in given:
            request.sender = self._sender(request.method, given, given.get(b"origin"), given.get(b"sec-fetch-site"))

    def allows(self, origin: bytes) -> bool:
        """Tell whether pages of *origin* may call with a key."""
        return bool(self._origins) and (ANY.encode() in self._origins or origin.lower() in self._origins)

    def _sender(self, method: str, given: Mapping[bytes, bytes], origin: bytes | None, site: bytes | None) -> Sender:
        ours = site is None or site in OWN_SITES
        if ours and (origin is None or self._is_own(origin, given.get(b"host", b""), site)):
            return Sender.OWN_PAGE
        if origin is None:
            followed = given.get(b"sec-fetch-mode") == b"navigate" and given.get(b"sec-fetch-dest") == b"document"
            if followed and method in ("GET", "HEAD"):
                return Sender.FOLLOWED_LINK
        elif self.allows(origin):
            return Sender.ALLOWED_PAGE
        raise ForeignPage(
            "a browser asks this for a page of another origin; only origins in the setting cors_origins may, and with a key"
        )

    def _is_own(self, origin: bytes, host: bytes, site: bytes | None) -> bool:
        # A proxy may have put another Host in place of the one that the browser knows; what the browser itself says of
        # it counts.
        if site == b"same-origin":
            return True
        origin = origin.lower()
        return origin == self._own or origin.partition(b"://")[2] == host.lower() != b""

    def _is_ours(self, host: bytes) -> bool:
        name = host_name(host.decode("latin-1"))
        assert self._names is not None
        return is_loopback_name(name) or name in self._names


def host_name(host: str) -> str:
    """Return the name or address in a Host header, lower-case, without port and final dot; empty: malformed."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname or "", parts.port
    except ValueError:
        return ""
    return name.removesuffix(".") if parts.netloc == host and "@" not in host else ""


@lru_cache(NAMES_REMEMBERED)
def is_loopback_name(name: str) -> bool:
    """Tell whether *name* (from `host_name`) can only mean this machine."""
    try:
        address = ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def require_json(request: Request) -> None:
    """Refuse a body that came without a key and is not declared as JSON, because foreign pages can send those.

    Raises:
        NotDeclaredJson: the type is another one, or missing.
    """
    if request.principal is None:
        media = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media != b"application/json" and not (media.startswith(b"application/") and media.endswith(b"+json")):
            raise NotDeclaredJson
