"""The guard for URLs that strangers give us: our server must not be made to call into its own network.

Three walls. `UrlGuard.check` reads the URL when it is registered and again before each call: scheme, port, no
credentials, no odd spellings of addresses. The resolver drops inner addresses that a name resolves to. The socket
factory looks at the very address that is about to be connected, so a name that changes between look and call
(DNS rebinding) gains nothing. Redirects are not followed; time and size of an answer are bounded by the caller's named
limits.
"""

import ipaddress
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from comptoir.kit.errors import InvalidField

URL_CHARS_MAX = 2048
PORTS_LOW = frozenset((80, 443))
"""Below 1024 only these: no mail, no shell, no DNS."""
CONNECT_TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 16 * 1024 * 1024
"""Default bound of an answer, after decompression."""
READ_CHUNK_BYTES = 64 * 1024

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\Z")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z")
_INNER_NAMES = (
    ".localhost",
    ".local",
    ".internal",
    ".localdomain",
    ".home.arpa",
    ".lan",
    ".intranet",
    ".corp",
    ".private",
)
_INNER_NETS = tuple(
    ipaddress.ip_network(net)
    for net in (
        # Protocol assignments, 6to4 relays, and the inner endpoint of Azure, whose address looks public.
        "192.0.0.0/24",
        "192.88.99.0/24",
        "168.63.129.16/32",
        # Local NAT64, site-local, Teredo and 6to4 tunnels (they end at IPv4 addresses of somebody's choice), the rest.
        "64:ff9b:1::/48",
        "fec0::/10",
        "2001::/32",
        "2002::/16",
        "100::/64",
        "2001:db8::/32",
        "5f00::/16",
        "3fff::/20",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


class AddressRefused(OSError):
    """The address about to be connected lies inside; aiohttp turns it into a `ClientConnectorError`."""


class AnswerTooLong(Exception):
    """An answer exceeded its bound; *bytes_max* says which."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"the answer is longer than {bytes_max} bytes")
        self.bytes_max = bytes_max


def is_outside(address: Address) -> bool:
    """Say whether *address* is an ordinary one on the public Internet, also after unwrapping IPv4 inside IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        inner = _unwrapped(address)
        if inner is not None:
            return is_outside(inner)
    odd = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    if odd or address.is_link_local or address.is_private or not address.is_global:
        return False
    return not any(address in net for net in _INNER_NETS if net.version == address.version)


def _unwrapped(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that a packet to *address* would end at, if it is such a wrapping."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64 or address in _COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


class UrlGuard:
    """The rules in force. *allow_private* opens the inner network, for development and closed installations."""

    def __init__(self, *, allow_private: bool = False) -> None:
        self.allow_private = allow_private

    def check(self, field: str, url: str) -> None:
        """Do nothing if *url* may be kept and, as far as its spelling shows, called. No name is resolved here.

        Raises:
            InvalidField: names *field* and what is wrong.
        """
        if not 1 <= len(url) <= URL_CHARS_MAX:
            raise InvalidField(field, f"must be 1 to {URL_CHARS_MAX} characters")
        if any(character <= " " or character > "~" or character == "\\" for character in url):
            raise InvalidField(field, "must be ASCII without spaces or backslashes (other names in punycode)")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InvalidField(field, "is not a URL") from error
        if parts.scheme not in ("http", "https"):
            raise InvalidField(field, "must begin with http:// or https://")
        if "@" in parts.netloc:
            raise InvalidField(field, "must not contain a user name or password")
        if port is not None and port < 1024 and port not in PORTS_LOW and not self.allow_private:
            raise InvalidField(field, "port must be 80, 443, or 1024 and above")
        self._check_host(field, (parts.hostname or "").rstrip("."), bracketed="[" in parts.netloc)

    def _check_host(self, field: str, host: str, *, bracketed: bool) -> None:
        if bracketed:
            try:
                address: Address = ipaddress.IPv6Address(host)
            except ValueError as error:
                raise InvalidField(field, "has a malformed IPv6 address") from error
        elif not _NAME.match(host):
            raise InvalidField(field, "has no valid host name")
        elif _NUMBER.match(host.rpartition(".")[2]):
            # What ends in a number is an address: 2130706433 and 0x7f.1 are both 127.0.0.1.
            try:
                address = ipaddress.IPv4Address(host)
            except ValueError as error:
                raise InvalidField(field, "must spell an IPv4 address as four decimal numbers") from error
        else:
            if not self.allow_private and ("." + host).endswith(_INNER_NAMES):
                raise InvalidField(field, "must not point into a private network")
            return
        if not self.allows(address):
            raise InvalidField(field, "must not point into a private network")

    def allows(self, address: Address) -> bool:
        """Say whether *address* may be connected to."""
        return self.allow_private or is_outside(address)

    def connector(self, *, resolver: AbstractResolver | None = None, limit: int = 100) -> aiohttp.TCPConnector:
        """Return a connector for `aiohttp.ClientSession` that only reaches allowed addresses; call it in a loop."""
        inner = resolver if resolver is not None else aiohttp.ThreadedResolver()
        return aiohttp.TCPConnector(
            resolver=GuardedResolver(self, inner), socket_factory=self.socket, limit=limit, ttl_dns_cache=10
        )

    def socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        """Make the socket for one connection, unless its address lies inside: the last wall.

        Raises:
            AddressRefused: it does.
        """
        family, kind, protocol, _, target = address_info
        if not self.allows(ipaddress.ip_address(target[0])):
            raise AddressRefused("the address lies in a private network")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    @asynccontextmanager
    async def request(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: str,
        *,
        timeout_s: float,
        silence_s: float | None = None,
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Call *url* with a session made over `connector`; a redirect comes back as the answer it is.

        Args:
            timeout_s: bound of the whole call, reading included.
            silence_s: bound of any wait for its next byte.
            options: passed on to ``session.request`` (``data``, ``json``, ``headers``).

        Raises:
            InvalidField: the URL's spelling. aiohttp.ClientError, TimeoutError: the call failed or was refused.
        """
        self.check("url", url)
        timeout = aiohttp.ClientTimeout(
            total=timeout_s, sock_connect=min(timeout_s, CONNECT_TIMEOUT_S), sock_read=silence_s
        )
        async with session.request(method, url, allow_redirects=False, timeout=timeout, **options) as response:
            yield response


async def read_bounded(response: aiohttp.ClientResponse, *, bytes_max: int = ANSWER_BYTES_MAX) -> bytes:
    """Read an answer of at most *bytes_max* bytes (counted after decompression).

    Raises:
        AnswerTooLong: there was more; the connection is closed.
    """
    read = bytearray()
    async for chunk in response.content.iter_chunked(READ_CHUNK_BYTES):
        read += chunk
        if len(read) > bytes_max:
            response.close()
            raise AnswerTooLong(bytes_max)
    return bytes(read)


class GuardedResolver(AbstractResolver):
    """A resolver that never tells an inner address."""

    def __init__(self, guard: UrlGuard, inner: AbstractResolver) -> None:
        self._guard = guard
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve *host* and keep what is allowed.

        Raises:
            AddressRefused: nothing is left. OSError: the name does not resolve.
        """
        found = await self._inner.resolve(host, port, family)
        allowed = [each for each in found if self._guard.allows(ipaddress.ip_address(each["host"]))]
        if not allowed:
            raise AddressRefused(f"{host} resolves into a private network")
        return allowed

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()
