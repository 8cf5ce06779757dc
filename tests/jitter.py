"""Delay I/O and threads at random: a test that leans on an order that nobody promised fails here first, not in
somebody's CI.

A plugin of pytest that is loaded when asked for: ``make test ARGS="-p tests.jitter"``; ``JITTER_SEED=7`` makes other
delays. It changes nothing that an event loop or a kernel promises: one socket's bytes keep their order, a thread's
words to a loop theirs. Only the test process is delayed; programs that a test starts are not. Should pytest itself end
with "AST constructor recursion depth mismatch" where a test fails, a fault of Python 3.11's, ``--tb=native`` shows the
failure.
"""

import os
import random
import threading
import time
from asyncio import base_events, selector_events
from typing import Any

SHARE = 0.3
"""Of the sockets that became ready, and of the words of threads, those that are delayed."""

SOCKET_DELAY_S = 0.03
"""Longest delay of a socket: more than a round on loopback takes, less than any timeout."""

THREAD_DELAY_S = 0.02
"""Longest delay of what a thread, a database's for one, has to tell a loop."""

_dice = random.Random(int(os.environ.get("JITTER_SEED", "1")))
_held_until_s: dict[tuple[int, int], float] = {}
"""When a ready socket is handed on, by loop and file descriptor; the selector names it anew until then."""

_process_events: Any = selector_events.BaseSelectorEventLoop._process_events  # type: ignore[attr-defined]
_call_soon_threadsafe: Any = base_events.BaseEventLoop.call_soon_threadsafe


def _some_events(loop: Any, events: list[tuple[Any, int]]) -> None:
    now_s = time.monotonic()
    due = []
    for key, mask in events:
        socket = (id(loop), key.fd)
        if key.fileobj is not loop._ssock:  # How other threads wake the loop: those are delayed for themselves.
            if socket not in _held_until_s and _dice.random() < SHARE:
                _held_until_s[socket] = now_s + _dice.random() * SOCKET_DELAY_S
            if _held_until_s.get(socket, 0.0) > now_s:
                continue
        _held_until_s.pop(socket, None)
        due.append((key, mask))
    _dice.shuffle(due)
    if len(due) < len(events):
        time.sleep(0.0005)  # The selector returns at once now.
    _process_events(loop, due)


def _call_late(loop: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
    if loop._thread_id != threading.get_ident() and _dice.random() < SHARE:
        time.sleep(_dice.random() * THREAD_DELAY_S)
    return _call_soon_threadsafe(loop, callback, *args, **kwargs)


def pytest_configure() -> None:
    """Delay all loops of this process from now on."""
    selector_events.BaseSelectorEventLoop._process_events = _some_events  # type: ignore[attr-defined]
    base_events.BaseEventLoop.call_soon_threadsafe = _call_late  # type: ignore[method-assign]
