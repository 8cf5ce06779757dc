"""A small HTTP client on the standard library: it starts in a tenth of the time of aiohttp, and streams."""

import contextlib
import http.client
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from comptoir.cli.failure import Exit, Failure
from comptoir.cli.target import Target

TIMEOUT_S = 30.0
"""Most seconds of silence for a plain call."""

STREAM_TIMEOUT_S = 120.0
"""Most seconds of silence on a stream; the server sends a sign of life every 15 s."""

ANSWER_BYTES_MAX = 256 * 1024 * 1024
"""Largest plain answer that is read."""

REFUSAL_BYTES_MAX = 1024 * 1024
"""Most of an error's body that is read."""

LINE_BYTES_MAX = 64 * 1024 * 1024
"""Longest line of a stream that is read."""


class ApiAnswer:
    """What came back."""

    def __init__(self, response: http.client.HTTPResponse, body: bytes) -> None:
        self.headers = response.headers
        self.body = body

    def json(self) -> Any:
        """Decode the body."""
        return json.loads(self.body)


class Api:
    """Calls one server with one key."""

    def __init__(self, target: Target) -> None:
        self.target = target
        parts = urlsplit(target.url)
        self._secure = parts.scheme == "https"
        self._netloc = parts.netloc
        self._prefix = parts.path.rstrip("/")

    def get(self, path: str) -> ApiAnswer:
        """GET *path*.

        Raises:
            Failure: not reachable, or refused.
        """
        return self.call("GET", path)

    def call(self, method: str, path: str, *, body: object = None, headers: dict[str, str] | None = None) -> ApiAnswer:
        """Send one request and read the whole answer.

        Raises:
            Failure: not reachable, or refused.
        """
        with self._open(method, path, body=body, headers=headers or {}, timeout_s=TIMEOUT_S) as response:
            return ApiAnswer(response, response.read(ANSWER_BYTES_MAX))

    @contextlib.contextmanager
    def stream(
        self, path: str, body: object, *, headers: dict[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """POST *body*; the answer is read as it comes. Leaving the block hangs up.

        Raises:
            Failure: not reachable, refused, or broken off.
        """
        with self._open("POST", path, body=body, headers=headers or {}, timeout_s=STREAM_TIMEOUT_S) as response:
            yield response

    @contextlib.contextmanager
    def exchange(
        self, method: str, path: str, *, data: Iterable[bytes] | None = None, headers: dict[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send *data* as it comes, of the length that *headers* say; the answer is read as it comes.

        Raises:
            Failure: not reachable, refused, or broken off.
        """
        with self._open(method, path, data=data, headers=headers or {}, timeout_s=STREAM_TIMEOUT_S) as response:
            yield response

    @contextlib.contextmanager
    def _open(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        data: Iterable[bytes] | bytes | None = None,
        headers: dict[str, str],
        timeout_s: float,
    ) -> Iterator[http.client.HTTPResponse]:
        maker = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        sent = {"Accept": "application/json, text/event-stream", "User-Agent": "comptoir-cli", **headers}
        if self.target.key:
            sent["Authorization"] = f"Bearer {self.target.key}"
        if body is not None:
            data = json.dumps(body, ensure_ascii=False).encode()
            sent["Content-Type"] = "application/json"
        connection = maker(self._netloc, timeout=timeout_s)
        try:
            try:
                # A server that refuses a body may stop reading it: what it says is in its answer.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, self._prefix + path, body=data, headers=sent)
                response = connection.getresponse()
                refusal = response.read(REFUSAL_BYTES_MAX) if response.status >= 400 else b""
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from error
            if response.status >= 400:
                raise self._refused(response.status, refusal)
            try:
                yield response
            except (ConnectionResetError, TimeoutError, http.client.HTTPException) as error:
                # Other OS errors are the caller's own: its terminal or file may be gone.
                raise self._unreachable(error) from error
        finally:
            connection.close()

    def _unreachable(self, error: Exception) -> Failure:
        url = self.target.url
        if isinstance(error, ConnectionRefusedError):
            hint = "start one with 'comptoir up', or name another with --url or COMPTOIR_URL"
            return Failure(f"nothing listens at {url}", hint, code=Exit.UNREACHABLE)
        if isinstance(error, TimeoutError):
            return Failure(f"{url} does not answer", "is it the right address? try again", code=Exit.UNREACHABLE)
        words = str(error) or type(error).__name__
        return Failure(
            f"the connection to {url} failed: {words}", "check the address, try again", code=Exit.UNREACHABLE
        )

    def _refused(self, status: int, body: bytes) -> Failure:
        message = _message(body) or f"HTTP status {status}"
        if status == 401:
            hint = "give your key with COMPTOIR_KEY or --key-file"
            if not self.target.key:
                return Failure(f"{self.target.url} needs a key", hint, code=Exit.KEY, status=status)
            words = f"{self.target.url} does not accept this key: {message}"
            return Failure(words, hint, code=Exit.KEY, status=status)
        if status == 403:
            hint = "give an operator's key with COMPTOIR_ADMIN_KEY or --key-file" if "operator" in message else ""
            return Failure(message, hint, code=Exit.KEY, status=status)
        hints = {
            402: "see what you have with 'comptoir balance'; an operator adds credit with 'comptoir deposit'",
            429: "wait a moment and try again",
            503: "wait a moment and try again",
        }
        return Failure(message, hints.get(status, ""), status=status)


def _message(body: bytes) -> str:
    """Return the words of an error body, in whatever of the usual shapes they are."""
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(found, dict):
        return ""
    error = found.get("error", found.get("detail", found.get("message", "")))
    if isinstance(error, dict):
        error = error.get("message", "")
    return error if isinstance(error, str) else ""


class ServerSentEvent(NamedTuple):
    """One event of a stream."""

    name: str
    """Empty: it has none."""
    data: str
    id: str
    """Of the last event that had one: what ``Last-Event-ID`` says to read on behind it. Empty: none had."""


def sse_events(response: http.client.HTTPResponse) -> Iterator[ServerSentEvent]:
    """Yield the events of a stream as they come; comments are left out.

    Raises:
        http.client.HTTPException: a line is too long.
    """
    name, data, at = "", list[str](), ""
    while True:
        raw = response.readline(LINE_BYTES_MAX)
        if not raw:
            return
        line = raw.decode("utf-8", errors="replace").rstrip("\r\n")
        if not line:
            if data:
                yield ServerSentEvent(name, "\n".join(data), at)
            name, data = "", []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("id:"):
            at = line[3:].strip()
