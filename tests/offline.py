"""No test leaves this machine: a connection or a name look-up beyond loopback is refused, and fails the test.

The refusal is an `OSError`, as a dead network would give, and it is remembered: code under test that swallows
it still fails its test. Programs that a test starts, and libraries that open sockets in C, are not watched.
"""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest

LOCAL_NAMES = ("", "localhost", "0.0.0.0", "::")


class OffLoopback(OSError):
    """A test tried to reach another machine."""


ATTEMPTS: list[str] = []
"""What the running test tried."""


def is_local(host: object) -> bool:
    """Say whether *host*, a name or an address as sockets take it, is this machine."""
    if isinstance(host, bytes | bytearray):
        host = bytes(host).decode("ascii", errors="replace")
    if host is None or host in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_address(host: object) -> bool:
    """Say whether *host* is a number already, so that nobody is asked for it."""
    try:
        ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    return True


def refuse(what: str) -> OffLoopback:
    """Remember the attempt and make the error for it."""
    ATTEMPTS.append(what)
    return OffLoopback(f"tests stay on loopback: {what}")


class Guard:
    """The three ways out of Python's socket module, each with the question in front."""

    connect = socket.socket.connect
    connect_ex = socket.socket.connect_ex
    getaddrinfo = staticmethod(socket.getaddrinfo)

    @staticmethod
    def check(one: socket.socket, address: Any) -> None:
        if one.family in (socket.AF_INET, socket.AF_INET6) and not is_local(address[0]):
            raise refuse(f"connect to {address}")

    @staticmethod
    def guarded_connect(one: socket.socket, address: Any) -> None:
        Guard.check(one, address)
        Guard.connect(one, address)

    @staticmethod
    def guarded_connect_ex(one: socket.socket, address: Any) -> int:
        Guard.check(one, address)
        return Guard.connect_ex(one, address)

    @staticmethod
    def guarded_getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
        if not is_local(host) and not is_address(host):
            raise refuse(f"look up {host}")
        return Guard.getaddrinfo(host, *arguments, **named)


@pytest.fixture(scope="session", autouse=True)
def _guarded_sockets() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", Guard.guarded_connect)
        patch.setattr(socket.socket, "connect_ex", Guard.guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", Guard.guarded_getaddrinfo)
        yield


@pytest.fixture(autouse=True)
def _stays_on_loopback() -> Iterator[None]:
    ATTEMPTS.clear()
    yield
    assert ATTEMPTS == [], "tests stay on loopback"
