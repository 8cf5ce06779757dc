"""Authentication and rate limits: the only place where credentials and rates are checked."""

from collections.abc import Awaitable, Iterable
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from comptoir.identity import Anonymous, Credentials, Identity, OwnerKind, Principal
from comptoir.kit.clock import Clock
from comptoir.kit.errors import NotAllowed, NotAuthenticated, TooManyRequests
from comptoir.kit.http import (
    Access,
    BrowserPolicy,
    Dialect,
    ForeignPage,
    RepeatedHeader,
    Request,
    Sender,
    is_loopback_name,
)
from comptoir.kit.ratelimit import Allowance, RateLimiter, address_key
from comptoir.moderation import Barred
from comptoir.settings import Settings

ANY_NAME = "*"
"""In the setting ``server_names``: any Host header."""

KEY_OF = {Access.HOST: OwnerKind.HOST, Access.BUYER: OwnerKind.USER, Access.OPERATOR: OwnerKind.USER}
"""Whose key an endpoint needs; of any other access, anybody's will do."""

FOREIGN = (Sender.ALLOWED_PAGE, Sender.FOLLOWED_LINK)
"""A browser that acts for a foreign page."""

OTHERS_KEY = {
    OwnerKind.HOST: "this needs a host's key (hk_live_…); yours is a user's",
    OwnerKind.USER: "this needs a user's key (ck_…); yours is a host's",
}


class Gate:
    """Sets `Request.principal` and `Request.rate`, or refuses."""

    def __init__(
        self, identity: Identity, settings: Settings, clock: Clock, *, dialects: Iterable[Dialect] = ()
    ) -> None:
        self._identity = identity
        self._settings = settings
        self.by_key = RateLimiter(per_minute=settings.requests_per_minute_per_key, clock=clock)
        """Requests by user."""
        self.by_host = RateLimiter(per_minute=settings.requests_per_minute_per_host, clock=clock)
        """Requests by host."""
        self.by_ip = RateLimiter(per_minute=settings.requests_per_minute_per_ip, clock=clock)
        """Requests without a key, by address."""
        self.by_path = {
            dialect.name: RateLimiter(per_minute=dialect.own_rate(settings), clock=clock)
            for dialect in dialects
            if dialect.own_rate is not None
        }
        """Limiters of dialects with their own limit, by path; each counts by address."""
        self._proxies = [ip_network(text, strict=False) for text in settings.trusted_proxies]

    def __call__(self, request: Request, access: Access, dialect: Dialect) -> Awaitable[None] | None:
        """Admit *request*; returns a coroutine when a database lookup is needed.

        Raises:
            ForeignPage, NotAuthenticated, NotAllowed, TooManyRequests: in the order they are checked.
        """
        if self._proxies:
            request.address = self.peer(request)
        if request.sender in FOREIGN:
            access = _narrowed(access, by_page=request.sender is Sender.ALLOWED_PAGE)
        if access is Access.PUBLIC:
            self._limit_ip(request, dialect)
            return None
        authorization = request.headers.get(b"authorization")
        if authorization is not None:
            principal = self._identity.resolve_cached(authorization)
            if principal is not None:
                self._admit(request, access, principal)
                return None
        return self._look_up(request, access, dialect)

    async def _look_up(self, request: Request, access: Access, dialect: Dialect) -> None:
        try:
            found = await self._identity.resolve(self._credentials(request))
        except (NotAuthenticated, Barred):
            # Each guessed key costs a lookup, and each of a suspended holder; so it counts like a request without one.
            self._limit_ip(request, dialect)
            raise
        if isinstance(found, Anonymous):
            self._limit_ip(request, dialect)
            if request.sender is Sender.ALLOWED_PAGE:
                raise ForeignPage("a page of another origin needs a key here: send 'Authorization: Bearer <key>'")
            if access is not Access.OPTIONAL:
                raise NotAuthenticated("a credential is needed: send 'Authorization: Bearer <key>'")
            return
        if request.sender is Sender.ALLOWED_PAGE and found.key_id is None:
            # Browsers send a saved password with the requests of any page.
            raise ForeignPage("a page of another origin needs a key here; a password is none")
        self._admit(request, access, found)

    def _admit(self, request: Request, access: Access, principal: Principal) -> None:
        kind = principal.kind
        needed = KEY_OF.get(access, kind)
        if needed is not kind:
            raise NotAllowed(OTHERS_KEY[needed])
        if access is Access.OPERATOR and not principal.is_admin:
            raise NotAllowed("this needs an operator's key")
        request.principal = principal
        limiter = self.by_host if kind is OwnerKind.HOST else self.by_key
        request.rate = self._checked(limiter.take(principal.id))

    def _limit_ip(self, request: Request, dialect: Dialect) -> None:
        address = address_key(request.address)
        limiter = self.by_path.get(dialect.name)
        if limiter is not None:
            # The path under the dialect's prefix, or with a trailing slash, counts as the same.
            path = request.path.removeprefix(dialect.prefix).rstrip("/")
            if path not in dialect.unlimited:
                request.rate = self._checked(limiter.take(f"{path} {address}"))
                return
        request.rate = self._checked(self.by_ip.take(address))

    def _checked(self, allowance: Allowance) -> Allowance:
        if not allowance.allowed:
            raise TooManyRequests(
                f"more than {allowance.limit} requests a minute; come back in {allowance.retry_after_s:.2f} s",
                retry_after_s=allowance.retry_after_s,
            )
        return allowance

    def peer(self, request: Request) -> str:
        """Return the caller's address: the socket's, or the one that a trusted proxy reports."""
        peer = request.peer
        if self._proxies and peer:
            forwarded = [part.strip() for part in request.header(b"x-forwarded-for").split(",") if part.strip()]
            while forwarded and self._trusted(peer):
                peer = forwarded.pop()
        return peer

    def _trusted(self, peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)

    def _credentials(self, request: Request) -> Credentials:
        given = request.headers
        query_key = None
        if self._settings.allow_query_keys and b"api_key=" in request.scope["query_string"]:
            keys = [value for name, value in request.query_pairs() if name == "api_key"]
            if len(keys) > 1:
                raise RepeatedHeader("api_key (in the query)")
            query_key = keys[0].encode() if keys and keys[0] else None
        return Credentials(
            ip=request.address,
            authorization=given.get(b"authorization"),
            x_api_key=given.get(b"x-api-key"),
            x_admin_key=given.get(b"x-admin-key"),
            query_key=query_key,
        )


def _narrowed(access: Access, *, by_page: bool) -> Access:
    """Return who may call if a browser acts for a foreign page: only key holders, except for links to public pages."""
    return Access.ANY if access is Access.OPTIONAL or (by_page and access is Access.PUBLIC) else access


def browser_policy(settings: Settings) -> BrowserPolicy:
    """Return what foreign pages may request, and by which names this server is reached, from the settings."""
    public = urlsplit(settings.public_url)
    names = {name.rstrip(".").lower() for name in (*settings.server_names, public.hostname or "") if name}
    if names & {ANY_NAME} or not (is_loopback_name(settings.host.lower()) or settings.server_names):
        # On a network, the names by which it is reached are unknown unless configured.
        known = None
    else:
        known = frozenset(names | {settings.host.lower()})
    own = f"{public.scheme}://{public.netloc}" if public.netloc else ""
    return BrowserPolicy(origins=settings.cors_origins, own_origin=own, names=known)
