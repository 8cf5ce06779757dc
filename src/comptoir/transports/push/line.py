"""Push: the line to a host that gave us an address. The job is posted there, and the answer is taken as it comes.

Understood are ``202`` and ``204`` (the host posts its pieces and completes the job itself), ``200`` with an event stream
(``{"token": …}`` or OpenAI chunks, then ``[DONE]``) and ``200`` with JSON. A host that says it is busy is not to blame; any other
answer, silence or a broken connection is the host's fault. Addresses are looked at again before each call and at the socket.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial

import aiohttp
import msgspec

from comptoir.dispatch.ending_later import or_later
from comptoir.dispatch.errors import AnswerTooLarge
from comptoir.dispatch.house import House
from comptoir.dispatch.stream import complete, fail, take_frames
from comptoir.events import HostRegistered
from comptoir.hosts import PUSH, Host
from comptoir.jobs import Fault, Lease, LiveJob, NotYourLease
from comptoir.kinds.tokens.text import frames_of, text_of, whole_answer
from comptoir.kit.errors import InvalidField, Refusal
from comptoir.kit.ids import public
from comptoir.kit.urlguard import AnswerTooLong, UrlGuard, read_bounded
from comptoir.link import Frame, Usage
from comptoir.transports.poll import PollLine

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 1_000
"""Most hosts called at once; each call is a socket."""

EVENT_BYTES_MAX = 1 << 20
"""Longest line of a host's event stream; a token is a few bytes."""

ERROR_CHARS_MAX = 300
"""How much of a host's refusal is quoted to the buyer."""

RETRY_AFTER_MAX_S = 3_600.0

BUSY = (429, 503)
"""Statuses that say "not now": capacity, not fault."""


class _Words(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Words | None = None
    message: _Words | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(msgspec.Struct):
    """An event or a whole answer, in any of the spellings understood."""

    token: str | None = None
    tokens: list[str] = []
    output_text: str | None = None
    text: str | None = None
    choices: list[_Choice] = []
    usage: _Counts | None = None
    finish_reason: str | None = None
    error: msgspec.Raw = msgspec.Raw()

    def pieces(self) -> list[str]:
        """Return the text it brings, token by token where it says so."""
        found = list(self.tokens)
        if self.token is not None:
            found.append(self.token)
        for choice in self.choices:
            words = choice.delta or choice.message
            text = choice.text if words is None else words.content
            if text:
                found.append(text)
        return found

    def whole(self) -> str:
        """Return the text of an answer given in one."""
        return self.output_text if self.output_text is not None else self.text or ""

    def reason(self) -> str:
        """Return why it ended, empty when it does not say."""
        return self.finish_reason or next((c.finish_reason for c in self.choices if c.finish_reason), "")


_decode = msgspec.json.Decoder(_Answer).decode


class PushFailed(Exception):
    """A host's answer is none of those understood."""

    def __init__(self, message: str, *, status: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class PushLine:
    """One host with an address. A host that polls all the same is answered there, and not called."""

    def __init__(self, house: House, host: Host, *, session: aiohttp.ClientSession, guard: UrlGuard) -> None:
        self._house = house
        self._host = host
        self._session = session
        self._guard = guard
        self._calls: dict[bytes, asyncio.Task[None]] = {}
        self.polls = PollLine(house, host.id)

    # -- Line ----------------------------------------------------------------------------------------------------

    def send_job(self, job: LiveJob, lease: Lease) -> bool:
        """Begin to call the host; False once the coordinator has closed its connections."""
        if self.polls.send_job(job, lease):
            return True
        if self._session.closed:
            return False
        task = asyncio.get_running_loop().create_task(self._call(job, lease))
        self._calls[lease.id] = task
        task.add_done_callback(lambda done: self._ended(lease.id, done))
        return True

    def cancel(self, lease: Lease, reason: str) -> None:
        """Close the connection: the host stops."""
        self.polls.cancel(lease, reason)
        task = self._calls.pop(lease.id, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def settled(self, job: LiveJob, lease: Lease, *, state: str, earned_uusd: int, balance_uusd: int) -> None:
        """Close the connection, if the job ended by another way than its answer."""
        self.cancel(lease, state)

    def _ended(self, lease_id: bytes, task: "asyncio.Task[None]") -> None:
        self._calls.pop(lease_id, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("calling %s failed", public("host", self._host.id), exc_info=task.exception())

    async def close(self) -> None:
        """Close all connections; the jobs stay leased and are taken up by the next start."""
        calls = list(self._calls.values())
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    # -- one call ------------------------------------------------------------------------------------------------

    async def _call(self, job: LiveJob, lease: Lease) -> None:
        settings = self._house.settings
        url = self._host.row.endpoint_url or ""
        left_s = max(1.0, (job.deadline_ms - self._house.common_ms()) / 1000)
        why = PushFailed(f"no answer within {settings.push_timeout_s:g} s", status=504)
        try:
            async with asyncio.timeout(settings.push_timeout_s) as limit:
                async with self._guard.request(
                    self._session, "POST", url, timeout_s=left_s, data=self._body(job),
                    headers={"content-type": "application/json", "accept": "text/event-stream, application/json"},
                ) as response:  # fmt: skip
                    limit.reschedule(None)
                    if self._house.fleet.find(self._host.id) is not None:
                        self._house.fleet.seen(self._host.id)
                    await self._take(response, job, lease)
            return
        except NotYourLease:
            return  # Cancelled or lost meanwhile: what still arrives is ignored.
        except AnswerTooLarge as large:
            why = PushFailed(large.message)
        except TimeoutError:
            pass
        except PushFailed as failed:
            why = failed
        except Refusal as refusal:
            if not isinstance(refusal, InvalidField):
                log.warning("job %s could not be settled: %s", public("job", job.id), refusal)
                return  # The database is away: the end is written when it is back.
            why = PushFailed(f"its address may not be called: {refusal}")
        except (aiohttp.ClientError, OSError) as error:
            why = PushFailed(f"the connection failed: {type(error).__name__}")
        except AnswerTooLong as large:
            why = PushFailed(str(large))
        await self._failed(job, lease, why)

    async def _failed(self, job: LiveJob, lease: Lease, why: PushFailed) -> None:
        if job.lease is not lease or job.closing:
            return
        fault = Fault.CAPACITY if why.status in BUSY else Fault.HOST
        log.info("host %s: %s", public("host", self._host.id), why)
        try:
            failed = partial(
                fail, self._house, job, code="host_busy" if fault is Fault.CAPACITY else "push_failed",
                message=f"the host: {why}", fault=fault, status=502, retry_after_s=why.retry_after_s,
            )  # fmt: skip
            await or_later(self._house, job, failed)
        except Refusal as refusal:
            log.warning("the failure of job %s could not be written: %s", public("job", job.id), refusal)

    def _body(self, job: LiveJob) -> bytes:
        plain = text_of(job)
        return msgspec.json.encode(
            {
                "job_id": public("job", job.id),
                "model": job.model,
                "input_text": plain.input_text,
                "max_tokens": plain.max_tokens,
                "temperature": plain.temperature,
                "host_id": public("host", self._host.id),
            }
        )

    async def _take(self, response: aiohttp.ClientResponse, job: LiveJob, lease: Lease) -> None:
        status = response.status
        if status in (202, 204):
            return  # The host posts chunks and completes the job itself.
        if status != 200:
            said = (await response.content.read(4 * ERROR_CHARS_MAX)).decode("utf-8", "replace")[:ERROR_CHARS_MAX]
            raise PushFailed(f"it answered {status}: {said}", status=status, retry_after_s=_retry_after(response))
        if response.content_type == "text/event-stream":
            await self._stream(response, job, lease)
            return
        answer = _answer(await read_bounded(response))
        usage = _usage(answer)
        pieces = answer.pieces()
        if len(pieces) > 1 or (pieces and answer.token is not None):
            frames = frames_of(pieces, job=job, counted=usage.completion_tokens)
        else:
            frames = whole_answer(pieces[0] if pieces else answer.whole(), job=job, counted=usage.completion_tokens)
        self._give(job, lease, frames)
        await complete(self._house, job, finish_reason=answer.reason() or "stop", usage=usage)

    async def _stream(self, response: aiohttp.ClientResponse, job: LiveJob, lease: Lease) -> None:
        reason, usage, rest = "", Usage(), b""
        async for piece in response.content.iter_any():
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > EVENT_BYTES_MAX:
                raise PushFailed(f"an event is longer than {EVENT_BYTES_MAX} bytes")
            texts: list[str] = []
            done = False
            for line in lines:
                data = line[5:].strip() if line.startswith(b"data:") else b""
                if not data:
                    continue
                if data == b"[DONE]":
                    done = True
                    break
                answer = _answer(data)
                texts += answer.pieces()
                reason = answer.reason() or reason
                usage = _usage(answer) if answer.usage is not None else usage
            self._give(job, lease, frames_of(texts, job=job))
            if done:
                await complete(self._house, job, finish_reason=reason or "stop", usage=usage)
                return
        raise PushFailed("it hung up before [DONE]")

    def _give(self, job: LiveJob, lease: Lease, frames: list[Frame]) -> None:
        if job.lease is not lease or job.closing:
            raise NotYourLease
        take_frames(self._house, job, len(job.frames), frames)


def _answer(data: bytes) -> _Answer:
    try:
        answer = _decode(data)
    except msgspec.DecodeError as error:
        raise PushFailed(f"its answer is not understood: {error}") from error
    reported = bytes(answer.error)
    if reported not in (b"", b"null"):
        raise PushFailed(f"it reported {reported.decode('utf-8', 'replace')[:ERROR_CHARS_MAX]}")
    return answer


def _usage(answer: _Answer) -> Usage:
    counts = answer.usage
    return Usage(max(0, counts.prompt_tokens), max(0, counts.completion_tokens)) if counts is not None else Usage()


def _retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), RETRY_AFTER_MAX_S) if text.isascii() and text.isdigit() else 0.0


@contextlib.asynccontextmanager
async def pushing(house: House, guard: UrlGuard) -> AsyncIterator[None]:
    """Keep lines to all hosts that gave an address, those stored and those that register, until the block ends."""
    session = aiohttp.ClientSession(
        connector=guard.connector(limit=CONNECTIONS_MAX), cookie_jar=aiohttp.DummyCookieJar()
    )

    def reach(host: Host) -> None:
        if host.row.transport == PUSH:
            house.lines[host.id] = PushLine(house, host, session=session, guard=guard)

    house.events.subscribe(HostRegistered, lambda event: reach(house.fleet.get(event.host_id)))
    for host in house.fleet:
        reach(host)
    try:
        yield
    finally:
        for line in house.lines.values():
            if isinstance(line, PushLine):
                await line.close()
        await session.close()
