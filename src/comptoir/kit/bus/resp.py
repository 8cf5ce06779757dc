"""One connection to a Redis or Valkey server: addresses, commands as bytes, answers in order, and noticing silence.

Built on hiredis' parser alone: a turn's commands are one write, an answer costs one call. bench/bench_bus.py compares
it with redis-py.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import hiredis

WATCH_S = 0.1
"""How often a connection looks whether it still hears something."""

SILENT_LOOKS_MAX = 7
"""Looks in a row without a sign of life while an answer is due: 0.7 to 0.8 s. Looks are counted, not seconds, so that
an event loop that stood still itself (a paused process) takes nobody for dead."""

PORT = 6379

_MORE = object()
"""What the parser gives when an answer is not complete."""

Answer = Callable[[Any], None]
"""Gets a command's answer; an error of the server is given as a `hiredis.ReplyError`."""


def command(*words: bytes) -> bytes:
    """Return a command as it goes over the wire."""
    return head(len(words), *words)


def head(count: int, *words: bytes) -> bytes:
    """Return the first words of a command that has *count* of them."""
    return b"*%d\r\n" % count + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@dataclass(frozen=True)
class Address:
    """Where a server is, and how to get in."""

    host: str
    port: int
    path: str
    """Of a unix socket; empty: *host* and *port*."""
    tls: ssl.SSLContext | None
    greeting: tuple[bytes, ...] = field(repr=False)
    """Commands to begin a connection with: password, database."""


def parse_address(address: str) -> Address:
    """Read an address as `kit.bus.open_bus` takes it.

    Raises:
        ValueError: it is malformed; the message does not repeat it, as it may hold a password.
    """
    parts = urlsplit(address)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unix = parts.scheme == "unix"
    if parts.scheme not in ("redis", "rediss", "valkey", "valkeys", "unix"):
        raise ValueError("a bus's address begins with redis://, rediss://, valkey://, valkeys:// or unix://")
    if parts.fragment or set(options) - ({"db"} if unix else {"ssl_ca_certs"}):
        raise ValueError("a bus's address has an option that is not known")
    database = options.get("db", "0") if unix else parts.path.strip("/") or "0"
    if not (database.isascii() and database.isdigit() and len(database) < 6):
        raise ValueError("the database of a bus's address is not a number")
    if unix and not parts.path:
        raise ValueError("a bus's address names no socket")
    secure = parts.scheme in ("rediss", "valkeys")
    tls = ssl.create_default_context(cafile=options.get("ssl_ca_certs")) if secure else None
    return Address(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or PORT,
        path=unquote(parts.path) if unix else "",
        tls=tls,
        greeting=_greeting(parts, database),
    )


def _greeting(parts: SplitResult, database: str) -> tuple[bytes, ...]:
    commands = []
    if parts.password:
        names = (unquote(parts.username).encode(),) if parts.username else ()
        commands.append(command(b"AUTH", *names, unquote(parts.password).encode()))
    if database != "0":
        commands.append(command(b"SELECT", database.encode()))
    return tuple(commands)


class RespConnection(asyncio.Protocol):
    """A connection whose answers come in the order of the commands; `lost` resolves with the reason when it ends."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.due: deque[Answer] = deque()
        """Who waits for an answer, oldest first."""
        self._transport: asyncio.Transport | None = None
        self._parser = hiredis.Reader(notEnoughData=_MORE)
        self._heard = False
        self._silent = 0
        self._watch = self._loop.call_later(WATCH_S, self._look)

    def send(self, data: bytes, answers: Sequence[Answer]) -> None:
        """Write commands; each of *answers* is called with its command's answer, none when the connection is lost."""
        if self._transport is not None and not self.lost.done():
            self.due.extend(answers)
            self._transport.write(data)

    async def ask(self, *commands: bytes) -> list[Any]:
        """Write commands in one piece and return their answers.

        Raises:
            hiredis.ReplyError: the server refused one of them.
            ConnectionError: the connection is lost.
        """
        answers: list[Any] = []
        complete: asyncio.Future[None] = self._loop.create_future()

        def answered(reply: Any) -> None:
            answers.append(reply)
            if len(answers) == len(commands) and not complete.done():
                complete.set_result(None)

        self.send(b"".join(commands), [answered] * len(commands))
        await asyncio.wait((complete, self.lost), return_when=asyncio.FIRST_COMPLETED)
        if not complete.done():
            raise ConnectionError(self.lost.result())
        for reply in answers:
            if isinstance(reply, Exception):
                raise reply
        return answers

    def end(self, reason: str) -> None:
        """Close at once; nobody gets an answer any more."""
        self._watch.cancel()
        if not self.lost.done():
            self.lost.set_result(reason)
        if self._transport is not None:
            self._transport.abort()

    # -- what the event loop says --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._watch.cancel()
        if not self.lost.done():
            self.lost.set_result(str(error) if error is not None else "the server closed the connection")

    def data_received(self, data: bytes) -> None:
        self._heard = True
        parser, due = self._parser, self.due
        try:
            parser.feed(data)
            while (reply := parser.gets()) is not _MORE and not self.lost.done():
                if not due:
                    self.end("the server said something that nobody asked for")
                    return
                due.popleft()(reply)
        except hiredis.ProtocolError as error:
            self.end(f"the server does not speak the protocol of Redis: {error}")

    def _look(self) -> None:
        self._silent = 0 if self._heard or not self.due else self._silent + 1
        self._heard = False
        if self._silent >= SILENT_LOOKS_MAX:
            self.end(f"no answer for {SILENT_LOOKS_MAX * WATCH_S:.1f} s")
        else:
            self._watch = self._loop.call_later(WATCH_S, self._look)


async def connect(address: Address) -> RespConnection:
    """Connect and get in.

    Raises:
        OSError: nobody is there.
        hiredis.ReplyError: the password or the database is refused.
    """
    loop = asyncio.get_running_loop()
    connection = RespConnection()
    try:
        if address.path:
            await loop.create_unix_connection(lambda: connection, address.path)
        else:
            await loop.create_connection(lambda: connection, address.host, address.port, ssl=address.tls)
        for greeting in address.greeting:
            await connection.ask(greeting)
    except BaseException:
        connection.end("no connection was made")
        raise
    return connection
