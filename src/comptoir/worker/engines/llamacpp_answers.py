"""One request on its way through llama.cpp: what is asked, what comes back, and what was delivered before.

Plain answers go on token-exactly after another host's frames: the prompt is given as text and the delivered tokens as
ids (of another engine's frames, which don't tell them, the ids of their text). Answers under a grammar
(``response_format``, ``tools``) can't begin in the middle; they are made again from the start and compared with what
was delivered.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from comptoir.link import Frame, Usage

from .base import EngineError, Finish, cannot_continue
from .gguf_metadata import TokenBytes
from .llamacpp_pieces import Framer, LlamaPiece, StopScanner, ended_by_stop, prefix_ids, prefix_text, same_frame
from .llamacpp_request import LlamaRequest
from .llamacpp_server import LlamaChoice, LlamaChunk, LlamaServer

Json = dict[str, Any]
Item = Frame | Finish | EngineError


class FrameMailbox:
    """Frames on their way from a request's thread to the event loop; bounded by the length of one answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[Item] = deque()
        self._ready = asyncio.Event()
        self._asleep = False
        self.cancelled = False

    def put(self, item: Item) -> None:
        """Hand over one item (from the thread); wakes the loop only when it waits."""
        self._items.append(item)
        if self._asleep:
            self._asleep = False
            self._loop.call_soon_threadsafe(self._ready.set)

    async def take(self) -> Item:
        """Return the next item (on the loop)."""
        while not self._items:
            self._ready.clear()
            self._asleep = True
            # Looked at again: the thread may have put one before it could see that we sleep.
            if not self._items:
                await self._ready.wait()
            self._asleep = False
        return self._items.popleft()


class PlainAnswer:
    """One request over the completion endpoint, where every token's id is told."""

    def __init__(
        self, ask: LlamaRequest, prefix: Sequence[Frame], server: LlamaServer, table: TokenBytes | None
    ) -> None:
        self._ask = ask
        self._prefix = prefix
        self._server = server
        self._table = table
        # An answer that is made again is scanned from its beginning.
        again = "json_schema" in ask.options
        self._stops = StopScanner(ask.stops, before="" if again else "".join(frame.text for frame in prefix))
        self._framer = Framer(
            table, kind=ask.kind, top_logprobs=ask.top_logprobs, offset=sum(len(frame.text) for frame in prefix)
        )
        self._seen = 0
        self._delivered = 0
        self._usage = Usage()
        self._replay: Replay | None = None
        self._given = 0
        self._finish = ""

    def run(self, mailbox: FrameMailbox) -> None:
        """Ask, and put frames and the finish into *mailbox*. Raises EngineError."""
        ask = self._ask
        prompt = ask.prompt if ask.kind == "completion" else self._server.apply_template(ask.messages)
        body = self._body(prompt)
        left = ask.max_tokens - sum(frame.tokens for frame in self._prefix)
        if self._prefix and (ended_by_stop(self._prefix) or (ask.max_tokens >= 0 and left <= 0)):
            tokens = self._server.count(prompt) if isinstance(prompt, str) else len(prompt)
            reason = "stop" if ended_by_stop(self._prefix) else "length"
            mailbox.put(Finish(reason, Usage(tokens, 0)))
            return
        self._server.stream(body, lambda chunk: self._chunk(chunk, mailbox), chat=False)
        if mailbox.cancelled:
            return
        if self._replay is not None:
            self._replay.check_complete()
        mailbox.put(Finish(self._finish, Usage(self._usage.prompt_tokens - self._given, self._delivered)))

    def _body(self, prompt: str | list[int]) -> Json:
        ask = self._ask
        before = sum(frame.tokens for frame in self._prefix)
        ids: list[int] = []
        if "json_schema" in ask.options:
            self._replay = Replay(self._prefix)
            before = 0
        else:
            known = prefix_ids(self._prefix, self._table)
            # Frames of a host with another engine don't name their tokens.
            ids = known if known is not None else self._server.tokens(prefix_text(self._prefix))
        self._given = len(ids)
        parts: list[str | int] = [prompt, *ids] if isinstance(prompt, str) else [*prompt, *ids]
        body = ask.options | {
            "prompt": parts,
            "n_predict": ask.max_tokens - before if ask.max_tokens >= 0 else -1,
            "stream": True,
            "verbose": True,
            "return_tokens": True,
            "return_progress": True,
        }
        if ask.top_logprobs >= 0:
            body["n_probs"] = max(1, ask.top_logprobs)
        return body

    def _chunk(self, chunk: LlamaChunk, mailbox: FrameMailbox) -> bool:
        """Take one message; True stops llama.cpp."""
        if mailbox.cancelled:
            return True
        choice, verbose = chunk.choices[0], chunk.verbose
        if verbose is None or chunk.prompt_progress is not None:
            return False
        self._usage = Usage(verbose.tokens_evaluated, verbose.tokens_predicted)
        if choice.finish_reason is not None:
            self._finish = choice.finish_reason
            self._deliver(self._stops.rest(), mailbox)
            return False
        if not choice.text:
            # The end-of-answer token; tokens of an unfinished character send nothing at all.
            return False
        self._deliver(self._stops.feed(self._piece(choice, verbose.tokens, verbose.tokens_predicted)), mailbox)
        if self._stops.hit:
            self._finish = "stop"
        return self._stops.hit

    def _piece(self, choice: LlamaChoice, tokens: list[int], predicted: int) -> LlamaPiece:
        count, self._seen = predicted - self._seen, predicted
        ids: list[int] | None = tokens
        if count != 1:
            ids = self._table.ids_of(choice.text, last=tokens[-1], count=count) if self._table is not None else None
        return LlamaPiece(choice.text, count, ids, choice.logprobs.content if choice.logprobs is not None else [])

    def _deliver(self, pieces: Sequence[LlamaPiece], mailbox: FrameMailbox) -> None:
        for piece in pieces:
            frame = self._framer.frame(piece)
            if self._replay is not None and self._replay.covers(frame):
                continue
            self._delivered += frame.tokens
            mailbox.put(frame)


class ToolAnswer:
    """One chat with tools, through llama.cpp's chat layer, which parses the calls out of the text."""

    def __init__(self, ask: LlamaRequest, prefix: Sequence[Frame], server: LlamaServer) -> None:
        self._ask = ask
        self._server = server
        self._replay = Replay(prefix)
        self._seen = 0
        self._delivered = 0
        self._prompt_tokens = 0
        self._finish = ""

    def run(self, mailbox: FrameMailbox) -> None:
        """Ask, and put frames and the finish into *mailbox*. Raises EngineError."""
        ask = self._ask
        body = ask.options | ask.tools
        body |= {"messages": ask.messages, "n_predict": ask.max_tokens, "stop": list(ask.stops), "stream": True}
        # Chat chunks don't name their tokens; these counters say how many each stands for.
        body |= {"timings_per_token": True, "verbose": True}
        if "json_schema" in body:
            body["response_format"] = {"type": "json_schema", "json_schema": {"schema": body.pop("json_schema")}}
        self._server.stream(body, lambda chunk: self._chunk(chunk, mailbox), chat=True)
        if mailbox.cancelled:
            return
        self._replay.check_complete()
        mailbox.put(Finish(self._finish, Usage(self._prompt_tokens, self._delivered)))

    def _chunk(self, chunk: LlamaChunk, mailbox: FrameMailbox) -> bool:
        if mailbox.cancelled:
            return True
        choice = chunk.choices[0]
        if chunk.timings is not None:
            self._prompt_tokens = chunk.timings.prompt_n + chunk.timings.cache_n
        if choice.finish_reason is not None:
            self._finish = choice.finish_reason
        frame = self._frame(chunk, choice)
        if frame is not None and not self._replay.covers(frame):
            self._delivered += frame.tokens
            mailbox.put(frame)
        return False

    def _frame(self, chunk: LlamaChunk, choice: LlamaChoice) -> Frame | None:
        delta = choice.delta
        if delta is None or (not delta.content and not delta.reasoning_content and not delta.tool_calls):
            return None
        predicted = chunk.timings.predicted_n if chunk.timings is not None else self._seen
        count, self._seen = predicted - self._seen, max(predicted, self._seen)
        other: Json = {}
        if delta.reasoning_content:
            other["reasoning_content"] = delta.reasoning_content
        if delta.tool_calls:
            other["tool_calls"] = delta.tool_calls
        return Frame(delta.content or "", max(0, count), msgspec.json.encode({"delta": other}) if other else b"")


class Replay:
    """An answer made again from its start: drops the frames delivered before, after making sure they are the same."""

    def __init__(self, prefix: Sequence[Frame]) -> None:
        self._prefix = prefix
        self._at = 0

    def covers(self, frame: Frame) -> bool:
        """Return whether *frame* was delivered before.

        Raises:
            EngineError: another frame was delivered in its place.
        """
        if self._at == len(self._prefix):
            return False
        if not same_frame(self._prefix[self._at], frame):
            raise _differs(self._at)
        self._at += 1
        return True

    def check_complete(self) -> None:
        """Make sure that everything delivered came again. Raises EngineError."""
        if self._at < len(self._prefix):
            raise _differs(self._at)


def _differs(place: int) -> EngineError:
    return cannot_continue(f"made again, it differs at frame {place}")
