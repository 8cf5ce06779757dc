"""One answer, read to its end over as many connections as it takes.

The request carries an Idempotency-Key, so that the job goes on without its reader, and a repeat of the request attaches
to it and is told all of it from the start: what was shown already is passed over. It costs nothing to ask again, and it
may be any coordinator of the trading post that answers.
"""

import json
import secrets
import sys
import time
from http.client import HTTPResponse
from typing import Any, Protocol
from urllib.parse import quote

import click

from comptoir.cli.api import Api, sse_events
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.harmless import harmless

PAUSES_S = (0.1, 0.25, 0.5, 1.0, 2.0)
"""Before each further try to go on; the last one repeats."""

RESTARTED = "answer_restarted"
"""Error code that ends a stream whose beginning is no longer part of the answer; a retry reads it from the start."""

PASSING = frozenset((429, 502, 503, 504))
"""Refusals of a repeated request that pass: a balancer without a coordinator, one that is just taking the job up."""

FOUND_WITHIN_S = 1.0
"""How long the job of a request whose answer never began is looked for: the request may just be arriving."""

FOUND_AGAIN_S = 0.1


class Watcher(Protocol):
    """Who is told how it goes."""

    def piece(self) -> None:
        """Text came that is new."""
        ...

    def thought(self, text: str) -> None:
        """The model thinks; *text* is new of it, and safe for a terminal."""
        ...

    def broke(self, *, for_s: float) -> None:
        """The connection is broken since *for_s* seconds; another try follows."""
        ...


class Told:
    """A text that comes piece by piece, and again from its start over each new connection."""

    def __init__(self) -> None:
        self.text = ""
        self.restarted = False
        """Whether this connection tells another text than the one before: it had to begin anew."""
        self._at = 0
        """How much of *text* this connection has told."""

    def told_again(self) -> None:
        """A new connection begins to tell it from its start."""
        self._at = 0
        self.restarted = False

    def take(self, text: str) -> str:
        """Take a piece; return what of it is new."""
        known = self.text[self._at : self._at + len(text)]
        if not text.startswith(known):
            self.restarted = True
            self.text = self.text[: self._at] + text
            self._at = len(self.text)
            return self.text
        self._at += len(text)
        fresh = text[len(known) :]
        self.text += fresh
        return fresh


class StreamReply:
    """What the stream said."""

    def __init__(self) -> None:
        self.answer = Told()
        self.thoughts = Told()
        """What the model thought before it answered, where the server sends that apart."""
        self.finish_reason = ""
        self.usage: dict[str, Any] = {}
        self.job = ""
        self.model = ""

    @property
    def text(self) -> str:
        """The answer so far."""
        return self.answer.text

    def told_again(self) -> None:
        """A new connection begins to tell the answer from its start."""
        self.answer.told_again()
        self.thoughts.told_again()

    def take(self, data: str) -> tuple[str, str]:
        """Take one event; return the text that is new, and the thoughts that are.

        Raises:
            Failure: the event says that the answer ends with an error.
        """
        try:
            chunk = json.loads(data)
        except ValueError as error:
            raise Failure(
                f"the server sent something other than JSON: {data[:100]!r}", "is this an OpenAI-compatible server?"
            ) from error
        if isinstance(chunk.get("error"), dict):
            if chunk["error"].get("code") == RESTARTED:
                raise Failure("the answer was restarted", self.paid_hint(), code=Exit.UNREACHABLE)
            raise Failure(f"the answer ended early: {chunk['error'].get('message', 'unknown error')}", self.paid_hint())
        self.usage = chunk.get("usage") or self.usage
        self.model = chunk.get("model") or self.model
        text = thought = ""
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            text += delta.get("content") or ""
            # Servers use either name.
            thought += delta.get("reasoning_content") or delta.get("reasoning") or ""
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        return self.answer.take(text), self.thoughts.take(thought)

    def paid_hint(self) -> str:
        """Say where to look what an unfinished answer cost."""
        return f"you pay only for what arrived: comptoir jobs show {self.job}" if self.job else ""


class ResumingAnswer:
    """Asks for one answer, and goes on with it where a connection broke."""

    def __init__(self, api: Api, body: dict[str, Any], *, watcher: Watcher, shown: bool, again_for_s: float) -> None:
        """
        Args:
            shown: print the text as it comes.
            again_for_s: how long it is tried again without anything new coming; 0: never, and hanging up cancels the
                job.
        """
        self.reply = StreamReply()
        self._api, self._body, self._watcher, self._shown = api, body, watcher, shown
        self._again_for_s = again_for_s
        self._headers = {"Idempotency-Key": secrets.token_hex(16)} if again_for_s else {}
        self._watched = sys.stdout.isatty()
        self._broken_s = 0.0
        """Monotonic time since which nothing new came; 0: it flows."""
        self._again = False
        """Whether it was asked before."""
        self._tries = 0

    def read(self) -> None:
        """Read it to its end.

        Raises:
            Failure: refused, ended by an error, or broken off for too long.
        """
        while True:
            try:
                self._read_once()
                return
            except Failure as failure:
                self._wait_to_go_on(failure)
                self._again = True

    def cancel(self) -> None:
        """Stop the job, wherever it is; one that is over, or whose server is gone, is left alone."""
        if not self._headers:
            return  # Hanging up has done it.
        try:
            if job := self.reply.job or job_of_key(self._api, self._headers["Idempotency-Key"]):
                self.reply.job = job
                self._api.call("POST", f"/house/jobs/{quote(job)}/cancel")
        except Failure as failure:
            if failure.status != 409:
                click.echo(f"the job may still run: {failure.message}", err=True)

    def _read_once(self) -> None:
        self.reply.told_again()
        with self._api.stream("/v1/chat/completions", self._body, headers=self._headers) as response:
            self.reply.job = _header(response, "x-comptoir-job") or self.reply.job
            for event in sse_events(response):
                if event.data == "[DONE]":
                    return
                self._show(*self.reply.take(event.data))
        hint = self.reply.paid_hint()
        raise Failure("the connection broke off before the answer was complete", hint, code=Exit.UNREACHABLE)

    def _show(self, text: str, thought: str) -> None:
        if text or thought:
            self._broken_s, self._tries = 0.0, 0
        if thought:
            self._watcher.thought(harmless(thought))
        if not text:
            return
        self._watcher.piece()
        if self.reply.answer.restarted:
            self.reply.answer.restarted = False
            click.echo("\nthe answer had to be restarted: host and coordinator were lost together", err=True)
        if self._shown:
            sys.stdout.write(harmless(text) if self._watched else text)
            sys.stdout.flush()

    def _wait_to_go_on(self, failure: Failure) -> None:
        """Wait until the request can be sent once more; raise *failure* where it can't, or not for too long."""
        passing = failure.code == Exit.UNREACHABLE or (self._again and failure.status in PASSING)
        if not self._headers or not passing:
            raise failure
        if not self._again and isinstance(failure.__cause__, ConnectionRefusedError):
            raise failure  # Nobody was there to begin with.
        self._broken_s = self._broken_s or time.monotonic()
        knows_keys: bool | None = None
        while not knows_keys:
            for_s = time.monotonic() - self._broken_s
            if for_s > self._again_for_s:
                hint = f"the job may go on without you: comptoir jobs show {self.reply.job}" if self.reply.job else ""
                raise Failure(failure.message, hint or failure.hint, code=failure.code, status=failure.status)
            self._watcher.broke(for_s=for_s)
            time.sleep(PAUSES_S[min(self._tries, len(PAUSES_S) - 1)])
            self._tries += 1
            knows_keys = bool(self.reply.job) or self._knows_keys()
            if knows_keys is False:
                raise failure

    def _knows_keys(self) -> bool | None:
        """Tell whether the server is a trading post; None: nobody can say now.

        Another server knows nothing of Idempotency-Keys: it would answer, and bill, a second time.
        """
        try:
            found = self._api.get("/house/status").json()
        except Failure as failure:
            unreachable = failure.code == Exit.UNREACHABLE or failure.status in PASSING
            return None if unreachable else False
        except ValueError:
            return False
        return isinstance(found, dict) and "status" in found


def job_of_key(api: Api, idempotency_key: str) -> str:
    """Return the job that a request under *idempotency_key* made, which may just be arriving; empty: none.

    Raises:
        Failure: as `Api.get`.
    """
    until = time.monotonic() + FOUND_WITHIN_S
    while True:
        found = api.get(f"/house/jobs?idempotency_key={idempotency_key}").json()["jobs"]
        if found or time.monotonic() > until:
            return str(found[0]["id"]) if found else ""
        time.sleep(FOUND_AGAIN_S)


def _header(response: HTTPResponse, name: str) -> str:
    return response.getheader(name) or ""
