"""One client's connection: uvicorn's httptools protocol, whose heads, bodies and unread answers are bounded in bytes
and time.

A head or a body that comes in one piece, as most do, costs two comparisons; only what is incomplete after a piece is
counted and looked after (`bounds.HttpTraffic`). Whatever was counted is given back when the connection is gone.

The parser's callbacks are ours from end to end, without uvicorn's below them: called one after the other, both were an
eighth of the Python instructions of a job's life. Its connections, cycles of a request and its answer, refusals and
upgrades are used as they are.
"""

import asyncio
from collections import deque
from functools import partial
from typing import Any, Protocol, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from comptoir.kit.errors import Refusal, Unavailable
from comptoir.kit.http.bounds import AGAIN_AFTER_S, FAILED_S, HEADERS_MAX, LINGER_S, HttpTraffic
from comptoir.kit.http.cork import OLD, CorkedTransport, Cycle
from comptoir.kit.http.errors import HeadTooLarge, TooSlow
from comptoir.kit.http.request import CONNECTION, GIVEN, Reply

SMALL_BODY_BYTES = 2 << 10
"""A body whose first piece is no larger is not counted up to there: it costs less than its connection does."""

NEW_CONNECTION_BYTES = 32 << 10
"""What the first bytes of a connection count for in a turn of the event loop: a request, or a WebSocket's handshake,
with all that is made for it, some 0.4 ms. Of thousands that come at once, others are heard in between."""

ASGI = {"version": "3.0", "spec_version": "2.3"}
"""What uvicorn says of itself in each scope."""

READ_IN_TURNS_BYTES = 32 << 10
"""After a piece of this size or more, the next one of its connection waits for a turn: with hundreds that send 15 MB
at once, all that can be read in one turn takes 15 ms."""

REASONS = {408: b"Request Timeout", 431: b"Request Header Fields Too Large", 503: b"Service Unavailable"}


class _Refuses(Protocol):
    def refusal(self, path: str, error: Refusal) -> Reply: ...


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection, counted by *traffic*."""

    # Slots beside uvicorn's dict: with more than 30 names in that, Python 3.11 gives each connection a table of its
    # own, and every access to one of them costs more, uvicorn's too: a job's life took 7 % more CPU.
    __slots__ = (
        "_abort_at_s",
        "_begun",
        "_bodiless",
        "_head_bytes",
        "_held",
        "_idle_s",
        "_in_head",
        "_let_in",
        "_moved",
        "_over",
        "_reading",
        "_since_s",
        "_traffic",
        "_unread",
        "_unread_s",
        "_upgrades",
        "entered",
        "failure",
        "key",
        "turns",
    )

    def __init__(self, *args: Any, traffic: HttpTraffic, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._traffic = traffic
        self.turns = traffic.turns
        """What is made for it is counted there first (`Turns.spend`)."""
        self.key = ""
        """Whose the bytes are; empty: a proxy's, until a request says whose it is."""
        self.failure: Refusal | None = None
        """Why the body at hand will not be complete; whoever reads it raises this."""
        self._begun = self._let_in = False
        self.entered = ""
        """Whose place it takes; empty: a proxy's."""
        self._over = False
        """The connection is another protocol's, or about to be closed: nothing that comes is looked at."""
        self._abort_at_s = 0.0
        self._in_head = True
        self._reading = False
        """Some of a request came, and its end did not."""
        self._bodiless = True
        """No piece of the body came so far."""
        self._upgrades = False
        """The head at hand asks for a WebSocket, and the connection is about to be handed over."""
        self._idle_s = 0.0
        """When the last answer was complete, by the loop's time."""
        self._head_bytes = 0
        """Of an incomplete head, counted in `HttpTraffic.heads`."""
        self._held: deque[int] = deque()
        """Bytes of body counted in `HttpTraffic.bodies`, of each request that is not answered, in their order."""
        self._since_s = 0.0
        """Since when what is incomplete is waited for, or when it was last seen to come fast enough; 0: not looked at
        yet."""
        self._moved = 0
        """Bytes that came since then."""
        self._unread = -1
        """Bytes of answers that waited when they were last looked at, since *_unread_s*; -1: not looked at yet."""
        self._unread_s = 0.0

    # -- life ----------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection, or close it at once where there are too many."""
        traffic = self._traffic
        key = traffic.key_of(transport.get_extra_info("peername"))
        if not traffic.enter(key):
            self._over = True
            transport.abort()
            return
        self._let_in = True
        self.key = self.entered = key
        # What the kernel does not take of an answer is waited for before more is made.
        transport.set_write_buffer_limits(high=0)
        super().connection_made(CorkedTransport(transport, self.loop))  # type: ignore[arg-type]
        self._traffic.watch(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back all that was counted."""
        if not self._let_in:
            return
        self._leave()
        self._traffic.leave(self.entered)
        super().connection_lost(exc)

    def _leave(self) -> None:
        self._over = True
        self.failure = None  # Its traceback holds what read the body, and that holds this.
        self._traffic.unwatch(self)
        self._give_head()
        if self.scope is not None:
            # No circle that keeps both in memory.
            self.scope.pop(CONNECTION, None)  # type: ignore[misc]
        held, self._held = self._held, deque()
        if size := sum(held):
            self._traffic.bodies.give(self.key, size)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over; its place is counted on by the other protocol."""
        self._leave()
        super().handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment]  # It holds this connection, which nobody else does any more.

    # -- in ------------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what came; a piece is never larger than a head may be, so that one is cut where it is too large."""
        if self._begun:
            if len(data) < READ_IN_TURNS_BYTES:
                self._take(data)
                return
        else:
            self._begun = True
            turn = self.turns.spend(self.key, NEW_CONNECTION_BYTES)
            if turn is not None:
                self.transport.pause_reading()
                turn.add_done_callback(partial(self._begin, data))
                return
        size = self._traffic.bounds.head_bytes_max
        for start in range(0, len(data), size):
            if self._over or self.transport.is_closing():
                return
            self._take(data[start : start + size])
        turn = self.turns.spend(self.key, len(data))
        if turn is not None and not self._over:
            cast(CorkedTransport, self.transport).hold_reading()
            turn.add_done_callback(self._read_on)

    def _read_on(self, _: "asyncio.Future[None]") -> None:
        """Read more, whose turn has come, unless whoever reads the body has enough."""
        cast(CorkedTransport, self.transport).release_reading(resume=not (self._over or self.flow.read_paused))

    def _take(self, data: bytes) -> None:
        if self._over:
            return
        whole_before = not self._reading
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._upgrades:
                self.handle_websocket_upgrade()
            else:
                self._unsupported_upgrade_warning()
        except httptools.HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)
        if self._reading and not self._over:
            self._owed(len(data), counts=whole_before or self._head_bytes > 0)

    def _owed(self, size: int, *, counts: bool) -> None:
        """Count a piece after which something is incomplete."""
        self._moved += size
        self._traffic.watch(self)
        if not self._in_head or not counts:
            return
        bounds = self._traffic.bounds
        if self._head_bytes + size > bounds.head_bytes_max or len(self.headers) > HEADERS_MAX:
            self._refuse(HeadTooLarge(bounds.head_bytes_max, HEADERS_MAX), "head_bytes_max")
        elif self._traffic.heads.take("", size):
            self._head_bytes += size
        else:
            busy = Unavailable("too many requests are only begun; try again", retry_after_s=AGAIN_AFTER_S)
            self._refuse(busy, "heads_bytes_max")

    def _begin(self, data: bytes, _: "asyncio.Future[None]") -> None:
        """Take the first bytes, whose turn has come."""
        if not self._over and not self.transport.is_closing():
            self.transport.resume_reading()
            self.data_received(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url = b""
        self.headers = []
        self._in_head = self._reading = True
        self._since_s, self._moved = 0.0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one line of its head."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Its head is complete; one that is too large is refused here if not before."""
        if self._over:
            return
        self._in_head = False
        headers = self.headers
        if (self._head_bytes or len(headers) > HEADERS_MAX) and not self._fits():
            return
        self._held.append(0)
        self._bodiless = True
        parser = self.parser
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        version = parser.get_http_version()
        given = dict(headers)
        self.scope = {
            "type": "http",
            "asgi": ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": headers,
            CONNECTION: self,  # type: ignore[misc]  # Keys of our own, as ASGI allows.
            GIVEN: given,
        }
        if parser.should_upgrade() and self._should_upgrade():
            self._upgrades = True
            return
        before = self.cycle
        # A client of HTTP/1.0 knows no answer before the answer.
        waits = b"expect" in given and given[b"expect"].lower() == b"100-continue" and version != OLD
        self.cycle = cycle = Cycle(self, keep_alive=version != OLD and parser.should_keep_alive(), waits=waits)
        if before is None or before.response_complete:
            self._start(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _fits(self) -> bool:
        """Tell whether a head is within its bounds, and refuse one that is not."""
        bounds = self._traffic.bounds
        self._give_head()
        self._since_s, self._moved = 0.0, 0
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.headers) <= HEADERS_MAX and size <= bounds.head_bytes_max:
            return True
        self._refuse(HeadTooLarge(bounds.head_bytes_max, HEADERS_MAX), "head_bytes_max")
        return False

    def _start(self, cycle: RequestResponseCycle) -> None:
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_body(self, body: bytes) -> None:
        """Take some of a body; what nobody is going to read is dropped."""
        if self._over or not self._held or self.failure is not None:
            return
        size = len(body)
        first, self._bodiless = self._bodiless, False
        if not (first and size <= SMALL_BODY_BYTES):
            if not self._traffic.bodies.take(self.key, size):
                self._traffic.refuse("bodies_bytes_max")
                self._fail(Unavailable("too many large bodies are under way; try again", retry_after_s=AGAIN_AFTER_S))
                return
            self._held[-1] += size
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """A request came to its end."""
        self._reading = False
        if self._over or self._upgrades:
            return
        if self.failure is not None and not self._held:
            self._recovered()
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    @property
    def gone(self) -> bool:
        """Whether nothing that is sent arrives any more."""
        return self._over

    def charge(self, address: str) -> None:
        """Count further bytes as those of *address*, for which a proxy speaks; of a client's own connection (*entered*)
        nothing changes."""
        if not self.entered and not any(self._held):
            self.key = address

    def count_answer(self, size: int) -> int:
        """Count a large answer that is going to be sent; return what was counted, 0 where there is no room."""
        budget = self._traffic.readers
        size = min(size, budget.bytes_per_key_max)
        return size if budget.take(self.key, size) else 0

    def uncount_answer(self, counted: int) -> None:
        """It was sent, or nobody is there any more."""
        self._traffic.readers.give(self.key, counted)

    def count_more(self, size: int) -> bool:
        """Count *size* bytes that the body at hand takes when it is unpacked or decoded, until it is answered; False:
        there is no room."""
        if not self._held or not self._traffic.bodies.take(self.key, size):
            self._traffic.refuse("bodies_bytes_max")
            return False
        self._held[0] += size
        return True

    def release_body(self) -> None:
        """The request that is answered now needs its body no more."""
        if self._held and self._held[0]:
            self._traffic.bodies.give(self.key, self._held[0])
            self._held[0] = 0

    def on_response_complete(self) -> None:
        """A request is answered: its body is not counted any more, and the rest of one that was not read is waited for
        a moment. Then the next one's turn has come."""
        held = self._held
        size = held.popleft() if held else 0
        if size or held or self.cycle.body or self._reading or self.failure is not None:
            self._drop_body(size)
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            cycle, _ = self.pipeline.pop()
            self._start(cycle)
            return
        self._idle_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            wait_s = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(wait_s, self.timeout_keep_alive_handler)

    def _drop_body(self, size: int) -> None:
        """Give back the *size* bytes that were counted of an answered request's body, and what is left of it."""
        if size:
            self._traffic.bodies.give(self.key, size)
        if not self._held and self.cycle.body:
            self.cycle.body = bytearray()  # Nobody read it, and it is not counted any more.
        if self.failure is not None:
            self.failure.__traceback__ = None  # It holds the pieces that were read.
        if self._reading and not self._held:
            self._since_s = self.loop.time()
        elif self.failure is not None:
            self._recovered()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing was asked since the last answer; one timer serves many requests."""
        self.timeout_keep_alive_task = None
        if self._reading or self.transport.is_closing() or not self.cycle.response_complete:
            return  # The next answer begins it anew.
        left_s = self._idle_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
        else:
            self.transport.close()

    # -- out -----------------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The kernel takes no more of an answer."""
        super().pause_writing()
        self._unread = -1
        self._traffic.watch(self)

    # -- what is owed --------------------------------------------------------------------------------------------------

    def check(self, now_s: float) -> bool:
        """Look after what is owed: cut or refuse what does not come, or is not read, in time."""
        if self._abort_at_s:
            if now_s < self._abort_at_s:
                return True
            self.transport.abort()
            return False
        paused = self.flow.write_paused
        if paused and not self._reads(now_s):
            return False
        if not (self._reading or self._in_head):
            return paused
        held = cast(CorkedTransport, self.transport).reading_held
        if held or self.flow.read_paused or not self._since_s:
            # What we did not read is not late.
            self._since_s, self._moved = now_s, 0
            return True
        bounds = self._traffic.bounds
        waited_s = now_s - self._since_s
        if self._in_head:
            if waited_s >= bounds.head_s:
                self._late()
        elif not self._held:
            if waited_s >= bounds.body_grace_s:
                self.transport.abort()
        elif waited_s >= bounds.body_grace_s:
            if self._moved < bounds.body_bytes_per_s_min * waited_s:
                self._traffic.refuse("body_bytes_per_s_min")
                slow = f"the body came with less than {bounds.body_bytes_per_s_min} bytes a second"
                self._fail(TooSlow(slow))
            self._since_s, self._moved = now_s, 0
        return not self._over or bool(self._abort_at_s)

    def _reads(self, now_s: float) -> bool:
        """Tell whether the client takes some of its answer; one that has taken nothing for a while is cut."""
        unread = self.transport.get_write_buffer_size()
        if unread != self._unread:
            self._unread, self._unread_s = unread, now_s
        elif now_s - self._unread_s >= self._traffic.bounds.reader_stall_s:
            self._traffic.refuse("reader_stall_s")
            self.transport.abort()
            self._over = True
            return False
        return True

    def _late(self) -> None:
        self._traffic.refuse("head_s")
        if self._reading:
            self._refuse(TooSlow(f"the head of the request did not come within {self._traffic.bounds.head_s:g} s"), "")
        else:
            self._over = True
            self.transport.abort()  # It never said a word, so it is told none.

    def _fail(self, why: Refusal) -> None:
        """Give the body at hand up: whoever reads it answers, and is cut if he does not."""
        self.failure = why
        self._abort_at_s = self.loop.time() + FAILED_S
        self._traffic.watch(self)
        self.cycle.message_event.set()

    def _recovered(self) -> None:
        """What was given up is answered, and came to its end: the next request is like any other."""
        self.failure = None
        self._abort_at_s = 0.0

    def _refuse(self, error: Refusal, bound: str) -> None:
        """Answer a head that will not be complete, and close; nothing more is read."""
        if bound:
            self._traffic.refuse(bound)
        self._give_head()
        self._over = True
        if self._held:
            self.transport.abort()  # An answer is under way, and this one would be taken for some of it.
            return
        reply = cast(_Refuses, self.app).refusal(self.url.partition(b"?")[0].decode("latin-1"), error)
        lines = [
            b"content-type: " + reply.media.encode(),
            b"content-length: %d" % len(reply.body),
            b"connection: close",
        ]
        lines += [name + b": " + value for name, value in reply.headers]
        head = b"HTTP/1.1 %d %b\r\n" % (reply.status, REASONS.get(reply.status, b"Refused"))
        self.transport.write(head + b"\r\n".join(lines) + b"\r\n\r\n" + reply.body)
        cast(CorkedTransport, self.transport).flush()
        self.transport.write_eof()
        self.transport.pause_reading()
        # The parser has what came of the head, which is not counted any more.
        self.parser = None  # type: ignore[assignment]
        self.headers, self.url = [], b""
        self._abort_at_s = self.loop.time() + LINGER_S
        self._traffic.watch(self)

    def _give_head(self) -> None:
        if self._head_bytes:
            self._traffic.heads.give("", self._head_bytes)
            self._head_bytes = 0
