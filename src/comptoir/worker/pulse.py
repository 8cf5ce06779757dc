"""Heartbeats on a path of their own: a thread with its own blocking connection, so that no load can starve them.

They go to the link's coordinator; if that one does not accept a pulse, the others are tried at once, so that a cluster
hears from the host even while its link moves from one coordinator to another.
"""

import http.client
import logging
import ssl
import threading
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

import msgspec

from comptoir.link import Pulse, PulseAnswer
from comptoir.worker.addresses import Addresses

_log = logging.getLogger(__name__)

PULSE_TIMEOUT_S = 5.0
"""Most seconds for one pulse to one coordinator."""

PULSE_EVERY_MIN_S = 0.2
PULSE_EVERY_MAX_S = 60.0
"""Bounds of the interval, whatever the coordinator requests."""

ANSWER_BYTES_MAX = 64 * 1024
"""Most bytes of an answer that are read."""


class PulseThread:
    """Posts a pulse now and then every *pulse_s* seconds.

    *snapshot* is called in the thread and may block; *on_answer* is called in the thread with what came back from the
    coordinator that the link is with (another one can't know of it as early).
    """

    def __init__(
        self,
        *,
        addresses: Addresses,
        key: str,
        pulse_s: float,
        snapshot: Callable[[], Pulse],
        on_answer: Callable[[PulseAnswer], None],
    ) -> None:
        self._addresses = addresses
        self._address = ""
        """Address of the open connection."""
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._every_s = min(max(pulse_s, PULSE_EVERY_MIN_S), PULSE_EVERY_MAX_S)
        self._snapshot = snapshot
        self._on_answer = on_answer
        self._stop = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self._thread = threading.Thread(target=self._run, name="comptoir-pulse", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end; it does within one pulse. Does not wait (it is a daemon)."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; False when it is still running."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            try:
                self._beat_somewhere(msgspec.json.encode(self._snapshot()))
            except Exception:  # The thread must not stop because of one bad beat, whatever a snapshot or listener does.
                _log.exception("pulse failed")
            if self._stop.wait(self._every_s):
                self._disconnect()
                return

    def _beat_somewhere(self, body: bytes) -> None:
        """Post to the link's coordinator, else to the first of the others that takes it."""
        addresses = self._addresses.in_turn()
        for address in addresses:
            if self._stop.is_set():
                return
            try:
                answer = self._beat(address, body)
            except (OSError, http.client.HTTPException) as error:
                self._disconnect()
                _log.info("pulse to %s failed: %s", address, error)
                continue
            if answer is not None and address == self._addresses.current:
                self._on_answer(answer)
            return

    def _beat(self, address: str, body: bytes) -> PulseAnswer | None:
        """Post once, and once more if a kept connection turns out to be closed (servers close it after seconds)."""
        if address != self._address:
            self._disconnect()
            self._address = address
        kept = self._connection is not None
        try:
            return self._post(body)
        except (ConnectionError, http.client.HTTPException):
            self._disconnect()
            if not kept:
                raise
        return self._post(body)

    def _post(self, body: bytes) -> PulseAnswer | None:
        """Post one pulse; None when the coordinator answered with an error (the link reports what it means)."""
        parts = urlsplit(self._address)
        connection = self._connection
        if connection is None:
            connection = self._connection = _connect(parts)
        connection.request("POST", parts.path + "/link/pulse", body=body, headers=self._headers)
        response = connection.getresponse()
        data = response.read(ANSWER_BYTES_MAX)
        if response.status != 200 or not response.isclosed():
            # Not read to the end, or not what we speak: start afresh next time.
            self._disconnect()
        if response.status != 200:
            _log.info("pulse answered with HTTP %d", response.status)
            return None
        try:
            return msgspec.json.decode(data, type=PulseAnswer)
        except msgspec.DecodeError as error:
            _log.info("pulse answer is not understood: %s", error)
            return None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connect(address: SplitResult) -> http.client.HTTPConnection:
    host = address.hostname or ""
    if address.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, address.port, timeout=PULSE_TIMEOUT_S, context=context)
    return http.client.HTTPConnection(host, address.port, timeout=PULSE_TIMEOUT_S)
