"""The container contract in bytes: what a container is sent for a step of a job, and what its answer means.

No I/O in here. What is said of a run goes to its buyer, so no message names the container's address (`Hidden`).
"""

import base64
from collections.abc import Mapping

import msgspec

from comptoir.link import ContainerRun, Frame
from comptoir.worker.engines.base import EngineError, EngineRequest, cannot_continue
from comptoir.worker.engines.hidden import Hidden
from comptoir.worker.retry_after import read_retry_after

OFFCHAIN = 1
"""``source`` and ``destination`` of a job that has nothing to do with a chain, and of the next container's input."""

STREAM = 2
"""``destination`` of an output that goes to the buyer as it is made."""

ERROR_BODY_MAX = 16 * 1024
"""Longest body of a failed run that is kept; a longer one is not kept at all, as half a document helps nobody."""

MESSAGE_CHARS_MAX = 2000
"""Most characters of what a container said that stand in an error's message."""

STOPPED = b'{"finish_reason":"stop"}'
"""*extra* of a run's last frame."""

_OWNERS_FAULT = (401, 403, 404, 405)
"""Nobody but the container's owner can do something about a wrong bearer or a wrong address."""

_BUSY = (408, 429)
_decode_run = msgspec.json.Decoder(ContainerRun).decode
_json = msgspec.json.Decoder(msgspec.Raw).decode


class Step(msgspec.Struct, frozen=True):
    """One container's part of a job."""

    body: bytes
    """For ``POST /service_output``."""
    stream: bool


def read_step(request: EngineRequest) -> Step:
    """Work out which step of its job *request* is and what the container is sent: its input word for word.

    Raises:
        EngineError: it is no container job, another container's turn, or all steps are done.
    """
    try:
        run = _decode_run(request.body)
    except msgspec.DecodeError as error:
        raise EngineError("bad_request", f"not a container job: {error}", fault="coordinator") from error
    step = len(request.prefix)
    if step >= len(run.containers):
        raise cannot_continue(
            "a container can only run again from the start, and part of its output was already delivered"
        )
    if run.containers[step] != request.model:
        wrong = f"step {step} of the job is {run.containers[step]!r}, not {request.model!r}"
        raise EngineError("wrong_step", wrong, fault="coordinator")
    data = request.prefix[-1].text.encode() if step else bytes(run.data)
    stream = run.stream and step == len(run.containers) - 1
    return Step(_sent(data, stream=stream, requires_proof=run.requires_proof), stream)


def _sent(data: bytes, *, stream: bool, requires_proof: bool) -> bytes:
    """Put *data* (JSON) into the body as it is: decoded and encoded again, long numbers could become other ones."""
    if not stream:
        proof = b"true" if requires_proof else b"false"
        return b'{"source":%d,"destination":%d,"data":%b,"requires_proof":%b}' % (OFFCHAIN, OFFCHAIN, data, proof)
    # Ritual's node says nothing of proofs to a container that streams; one that is to make them must be told.
    rest = b',"requires_proof":true' if requires_proof else b""
    return b'{"source":%d,"destination":%d,"data":%b%b}' % (OFFCHAIN, STREAM, data, rest)


def refused(status: int, headers: Mapping[str, str], body: bytes, hidden: Hidden) -> EngineError:
    """Say whose fault a container's HTTP *status* (not 2xx) is, in its own words."""
    kept = _kept(body, hidden)
    said = _words_of(body, hidden)
    if 300 <= status < 400:
        # What a redirect says is an address.
        said = f"the container answered with a redirect (HTTP {status}), which is not followed"
        return EngineError("container_failed", said, status=status)
    said = said or f"the container answered HTTP {status} and said nothing"
    retry_after_s = read_retry_after(headers)
    if status in _BUSY or (status == 503 and "Retry-After" in headers):
        return EngineError(
            "container_busy", said, fault="capacity", status=status, body=kept, retry_after_s=retry_after_s
        )
    if 400 <= status < 500 and status not in _OWNERS_FAULT:
        return EngineError("container_refused", said, fault="buyer", status=status, body=kept)
    return EngineError("container_failed", said, status=status, body=kept)


def read_output(body: bytes, hidden: Hidden) -> str:
    """Return a run's output word for word; it has to be JSON, whatever its content type says.

    Raises:
        EngineError: it is not.
    """
    try:
        text = body.decode()
        _json(body)
    except (ValueError, RecursionError) as error:
        # A DecodeError is a ValueError too, as is one of UTF-8.
        said = _words_of(body, hidden) or "the container's answer is empty, and not JSON"
        raise EngineError("container_failed", said, status=200, body=_kept(body, hidden)) from error
    return text


def is_json(body: bytes) -> bool:
    """Whether *body* is a JSON document in UTF-8."""
    try:
        body.decode()
        _json(body)
    except (ValueError, RecursionError):
        return False
    return True


def _kept(body: bytes, hidden: Hidden) -> bytes:
    return hidden.body(body) if len(body) <= ERROR_BODY_MAX else b""


def _words_of(body: bytes, hidden: Hidden) -> str:
    # A character has four bytes at most; hiding makes a text shorter, never longer.
    beginning = body[: 8 * MESSAGE_CHARS_MAX].decode(errors="replace")
    return hidden.text(beginning).strip()[:MESSAGE_CHARS_MAX]


class StreamFrames:
    """Makes the frames of a streamed run of its bytes: none lost, none changed, none out of order.

    What is UTF-8 becomes text, in whole characters; from the first byte on that is not, the rest of a piece goes as
    ``{"base64":"…"}``. At most the three first bytes of a character are held back.
    """

    def __init__(self) -> None:
        self._held = b""
        self._tokens = 1

    def feed(self, piece: bytes) -> list[Frame]:
        """Return the frames of the next *piece*."""
        data = self._held + piece
        held = _begun(data)
        self._held = data[len(data) - held :]
        return self._frames(data[: len(data) - held])

    def end(self) -> list[Frame]:
        """Return what was held back, and the last frame, which is empty."""
        frames = self._frames(self._held)
        self._held = b""
        return [*frames, self._frame("", STOPPED)]

    def _frames(self, data: bytes) -> list[Frame]:
        try:
            text, rest = data.decode(), b""
        except UnicodeDecodeError as error:
            text, rest = data[: error.start].decode(), data[error.start :]
        frames = [self._frame(text)] if text else []
        if rest:
            frames.append(self._frame("", b'{"base64":"%b"}' % base64.b64encode(rest)))
        return frames

    def _frame(self, text: str, extra: bytes = b"") -> Frame:
        tokens, self._tokens = self._tokens, 0
        return Frame(text, tokens, extra)


def _begun(data: bytes) -> int:
    """Return how many bytes at the end of *data* may be the beginning of a character, 0 to 3."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0b1100_0000 == 0b1000_0000:
            continue
        length = 2 if 0xC2 <= byte <= 0xDF else 3 if 0xE0 <= byte <= 0xEF else 4 if 0xF0 <= byte <= 0xF4 else 1
        return back if length > back else 0
    return 0
