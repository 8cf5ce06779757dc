"""Addresses of HTTP servers as people type them: with or without ``http://``, a slash at the end, an IPv6 address."""

import ipaddress
import re
from urllib.parse import urlsplit

ADDRESS_CHARS_MAX = 2048

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_INNER = ("localhost", ".localhost", ".local", ".internal", ".lan", ".home.arpa", ".intranet", ".corp", ".private")
_BRACKETED = re.compile(r"(\[[^\]]*\])(?::([0-9]+))?(/.*)?\Z")
_PLAIN = re.compile(r"([^\s:/\[\],@?#]+)(?::([0-9]+))?(/.*)?\Z")


class BadAddress(ValueError):
    """The text is no address of an HTTP server; the message says what to write."""


def looks_like_address(text: str) -> bool:
    """Tell whether somebody who typed *text* meant a server, and no file, word or Python name."""
    if _SCHEME.match(text):
        return True
    found = _BRACKETED.match(text) or _PLAIN.match(text)
    if found is None or text.startswith("."):
        return False
    host, port, path = found.groups()
    if port is not None or host == "localhost" or host.startswith("["):
        return True
    return _number(host) is not None or (path is not None and "." in host)


def http_address(text: str) -> str:
    """Return the ``http://`` or ``https://`` address that *text* means, without a slash at its end.

    Without a scheme it is ``http://`` for this machine and private networks, whose servers rarely speak anything else,
    and ``https://`` elsewhere, because keys are sent there.

    Raises:
        BadAddress: it means none.
    """
    typed = text.strip()
    found = _SCHEME.match(typed)
    if found is None:
        typed = f"{'http' if is_near(typed) else 'https'}://{typed}"
    elif found.group(1).lower() not in ("http", "https"):
        raise BadAddress(f"{text!r} is no address of a web server: it has to begin with http:// or https://")
    else:
        typed = found.group(0).lower() + typed[found.end() :]
    try:
        parts = urlsplit(typed)
        host, port = parts.hostname or "", parts.port
        if "[" in parts.netloc:
            ipaddress.IPv6Address(host)
        else:
            host.encode("idna")
    except ValueError as error:
        hint = "; an IPv6 address stands in brackets, as in http://[::1]:8000" if text.count(":") > 2 else ""
        raise BadAddress(f"{text!r} is no address: write it like http://127.0.0.1:8000{hint}") from error
    wrong = ""
    if len(typed) > ADDRESS_CHARS_MAX or not typed.isprintable() or re.search(r"[\s\\]", typed):
        wrong = f"has spaces, backslashes, or more than {ADDRESS_CHARS_MAX} characters"
    elif not host:
        wrong = "names no machine"
    elif port == 0 or parts.netloc.endswith(":"):
        wrong = "has no port after its colon"
    elif "@" in parts.netloc:
        wrong = "has a user name or password in it"
    elif parts.query or parts.fragment:
        wrong = "has a ? or # in it"
    if wrong:
        raise BadAddress(f"{text!r} {wrong}: write it like http://127.0.0.1:8000")
    return typed.rstrip("/")


def is_near(text: str) -> bool:
    """Tell whether *text*, an address without its scheme, is in a private network, as far as it shows."""
    found = _BRACKETED.match(text) or _PLAIN.match(text)
    host = found.group(1).lower() if found is not None else ""
    number = _number(host)
    if number is not None:
        return number.is_private or number.is_loopback or number.is_link_local
    return "." not in host or host.endswith(_INNER)


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
