"""Any server with OpenAI's API: vLLM, SGLang, llama.cpp, Ollama, TGI, LM Studio.

Chat and completion are always streamed from the server, whatever the buyer requested; the coordinator renders the
buyer's form. `openai_wire.refused` decides whose fault errors are; a stream that ends without ``[DONE]`` and without a
finish reason is a fault of the host, never a silent end.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import partial

import aiohttp
import msgspec

from comptoir.kinds.capabilities import CLAIMED
from comptoir.kinds.tokens.capabilities import FIELDS
from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines import openai_continue, openai_probe
from comptoir.worker.engines import openai_wire as wire
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish, cannot_continue
from comptoir.worker.engines.context_overflow import is_overflow
from comptoir.worker.engines.openai_answer import AnswerReader, read_embeddings
from comptoir.worker.engines.openai_capabilities import Json, Quiet, find_capabilities
from comptoir.worker.engines.openai_continue import (
    ContinuationMethod,
    ContinuationReader,
    ContinuationRequest,
    Delivered,
)
from comptoir.worker.engines.openai_metadata import Stated, read_metadata
from comptoir.worker.engines.openai_refusals import refused_of_ours
from comptoir.worker.engines.openai_stops import before_stops, guard_of
from comptoir.worker.engines.openai_upstream import Upstream, UpstreamModel, events, read_to_end, whole

_log = logging.getLogger(__name__)

EMBEDDINGS_BYTES_MAX = 40 * 1024 * 1024
"""Largest embeddings answer; it is sent as one frame of the link."""

CONTEXT_TOKENS_UNKNOWN = 4096
"""Context length offered when the server reports none."""

CONTEXT_TOKENS_MAX = 10_000_000
"""Longest context that is offered, whatever a server reports."""

_PATHS = {"chat": "/chat/completions", "completion": "/completions", "embedding": "/embeddings"}
_EMBEDDING_NAME = re.compile(r"embed|(^|[/_-])(bge|e5|gte|minilm)([-_.]|$)", re.IGNORECASE)


class OpenAIEngine:
    """One OpenAI-compatible server at *base_url* (with or without ``/v1``).

    *aliases* maps offered names to the server's model ids; with it only those are offered. *kinds* (``chat``,
    ``completion``, ``embedding``, joined by ``+``) replaces the guess by model name; *context_tokens* is offered where
    the server reports no context length. *capabilities* (``tools``, ``vision``, ``schema``, ``reasoning``, joined by
    ``+``; empty: none) are claimed as they are, and the server is not asked for any. With *continues* false, it is not
    probed how the server continues other hosts' frames, and it gets none, nor what it can do (both probes together take
    up to 500 tokens per model, which a metered server charges for).
    """

    name = "openai"

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None = None,
        aliases: Mapping[str, str] | None = None,
        kinds: str | None = None,
        context_tokens: int = CONTEXT_TOKENS_UNKNOWN,
        continues: bool = True,
        capabilities: str | None = None,
    ) -> None:
        self._upstream = Upstream(base_url, api_key=api_key)
        self._aliases = dict(aliases or {})
        self._kinds = kinds.split("+") if kinds else None
        if unknown := set(self._kinds or ()) - set(_PATHS):
            raise EngineError("engine_spec", f"kinds are chat, completion, embedding; not {', '.join(sorted(unknown))}")
        self._claimed = [name for name in capabilities.split("+") if name] if capabilities is not None else None
        if unknown := set(self._claimed or ()) - set(FIELDS):
            raise EngineError("engine_spec", f"capabilities are {', '.join(FIELDS)}; not {', '.join(sorted(unknown))}")
        self._context_tokens = context_tokens
        self._continues = continues
        self._upstream_names: dict[str, str] = {}
        self._owners: dict[str, str] = {}
        """What the list of models says of who owns each, which is the server's project."""
        self._stated: dict[str, Stated] = {}
        """What the server says of its models outside their list."""
        self._capabilities: dict[str, dict[str, str]] = {}
        """What was found out of those that were asked."""
        self._quiet = Quiet()
        self._found: dict[str, openai_probe.Found] = {}
        """What is known about how each of the server's models continues answers."""
        self._refused: dict[str, frozenset[str]] = {}
        """Fields of ours that the server refuses, by its model."""
        self._ends_itself: set[str] = set()
        """Its models that refuse a bound as large as their context, but end an answer there without one."""
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._detects = False

    async def start(self) -> None:
        """Connect and discover the models.

        Raises:
            EngineError: the server can't be reached, refuses the key, or serves no model.
        """
        self._upstream.open()
        if not await self.models():
            raise EngineError(
                "no_models", f"{self._upstream.base}/models lists no model to offer: load one there first"
            )

    async def models(self) -> list[ModelOffer]:
        """Return what the server lists now, under the names by which it is offered.

        Raises:
            EngineError: it can't be reached or does not answer as OpenAI's API does.
        """
        try:
            listed = await self._upstream.models()
        except EngineError:
            # It may restart as another server, or with other flags.
            self._found.clear()
            self._stated.clear()
            self._capabilities.clear()
            self._refused.clear()
            self._ends_itself.clear()
            raise
        # Inconclusive probes are repeated after the next answer.
        self._found = {model_id: found for model_id, found in self._found.items() if found.conclusive}
        by_id = {model.id: model for model in listed}
        offered: dict[str, UpstreamModel] = {}
        if self._aliases:
            offered = {name: by_id[own] for name, own in self._aliases.items() if own in by_id}
        else:
            for model in listed:
                for name in (_offered_name(model.id), *(model.aliases or ())):
                    offered.setdefault(name, model)
        self._upstream_names = {name: model.id for name, model in offered.items()}
        self._owners = {model.id: model.owned_by or "" for model in listed}
        if new := {model.id for model in offered.values()} - set(self._stated):
            self._stated |= dict.fromkeys(new, Stated()) | await read_metadata(self._upstream, new)
        return [
            ModelOffer(
                name=name,
                kinds=self._kinds_of(model.id),
                context_tokens=self._context(model),
                can_continue=self._goes_on(model.id),
                capabilities=self._able(model.id),
            )
            for name, model in offered.items()
        ]

    async def alive(self) -> bool:
        """Return whether something listens at the server's address; see `ShowsLife`."""
        return await self._upstream.listens()

    async def detect(self) -> None:
        """Probe how the first text model continues answers; others are probed after their first answer to a buyer.

        So a server that loads models on demand (Ollama) loads none for this.
        """
        self._detects = self._continues
        if not self._continues:
            return
        for model_id in self._upstream_names.values():
            if self._kinds_of(model_id) != ["embedding"]:
                await self._probe(model_id)
                return

    def continuation(self, model: str) -> str:
        """Return how the model offered as *model* continues answers; see `Continues`."""
        found = self._found.get(self._upstream_names.get(model, ""))
        return found.words if found is not None else ""

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Run it on the server; see `Engine.run`. Closing the iterator closes the connection to the server at once."""
        path = _PATHS.get(request.kind)
        model = self._upstream_names.get(request.model)
        if path is None or model is None:
            raise EngineError("model_not_served", f"no {request.kind} with {request.model!r} is served here now")
        if request.prefix:
            answer = self._go_on(request, model)
        elif request.kind == "embedding":
            answer = self._embed(request, model)
        else:
            answer = self._answer(path, request, model)
        try:
            with self._quiet.job():
                async with contextlib.aclosing(answer):
                    async for item in answer:
                        yield item
        except EngineError as error:
            raise self._upstream.hidden.error(error) from error
        if self._detects and request.kind != "embedding" and model not in self._found:
            self._probe_soon(model)

    async def close(self) -> None:
        """Close all connections."""
        for probe in self._probes.values():
            probe.cancel()
        if self._probes:
            await asyncio.wait(list(self._probes.values()))
        await self._upstream.close()

    async def _embed(self, request: EngineRequest, model: str) -> AsyncGenerator[Frame | Finish, None]:
        body = wire.upstream_body(request.body, model=model, stream=False)
        response = await self._upstream.post(self._upstream.base + _PATHS["embedding"], body)
        try:
            frame, finish = read_embeddings(await whole(response, EMBEDDINGS_BYTES_MAX))
            yield frame
            yield finish
        finally:
            response.close()

    async def _stream(
        self, path: str, fields: bytes, *, model: str, max_tokens: int, open_ended: bool
    ) -> aiohttp.ClientResponse:
        """Post *fields*, completed by `openai_wire.upstream_body`; again without what the server refuses of that.

        Args:
            open_ended: `EngineRequest.open_ended`. Some servers end an answer after some hundred tokens if nobody names
                a bound; others refuse one that leaves no room for the prompt.

        Raises:
            EngineError: as `Upstream.post_stream`.
        """
        known = self._refused.get(model, frozenset())
        without = learned = known
        if open_ended and model in self._ends_itself:
            without |= {"max_tokens"}
        while True:
            body = wire.upstream_body(fields, model=model, stream=True, max_tokens=max_tokens, without=without)
            try:
                response = await self._upstream.post_stream(path, body)
            except EngineError as error:
                # Each turn leaves out one field more, and there are few.
                refused = refused_of_ours(error, buyers=fields, sent=body)
                if open_ended and "max_tokens" not in without and is_overflow(error):
                    refused |= {"max_tokens"}  # If it is the prompt that does not fit, the next answer says so.
                if not refused:
                    raise
                without |= refused
                if not is_overflow(error):  # That a bound is too large for this request says nothing of the next.
                    learned |= refused
                continue
            if learned != known:
                _log.info("%s refuses %s: left out from now on", model, ", ".join(sorted(learned)))
                self._refused[model] = self._refused.get(model, frozenset()) | learned
            if open_ended and "max_tokens" in without:
                self._ends_itself.add(model)
            return response

    async def _answer(self, path: str, request: EngineRequest, model: str) -> AsyncGenerator[Frame | Finish, None]:
        response = await self._stream(
            path, request.body, model=model, max_tokens=request.max_tokens, open_ended=request.open_ended
        )
        guard = guard_of(request.body)
        try:
            answer = AnswerReader()
            async with contextlib.aclosing(events(response, answer)) as pieces:
                async for frames in pieces:
                    for frame in before_stops(frames, guard):
                        yield frame
            last, finish = answer.last()
            for frame in before_stops(last, guard, ends=True):
                yield frame
            yield Finish("stop", finish.usage) if guard is not None and guard.stopped else finish
            await read_to_end(response)
        finally:
            # A body read to its end has given its connection back already; any other is aborted here.
            response.close()

    # -- continuing another host's frames ------------------------------------------------------------------------

    async def _go_on(self, request: EngineRequest, model: str) -> AsyncGenerator[Frame | Finish, None]:
        """Continue the request's prefix by the best method that was found; see `openai_continue`."""
        delivered = openai_continue.read_delivered(request.prefix)
        if reason := openai_continue.ended(request.prefix, request):
            yield Finish(reason, Usage())
            return
        found = self._found.get(model)
        proven, continuation = openai_continue.join(request, delivered, found.methods if found is not None else ())
        if proven.method is ContinuationMethod.TOKENS:
            continuation = await self._as_tokens(request, model, delivered, continuation)
        fields = openai_continue.body_of(continuation)
        try:
            response = await self._stream(
                continuation.path,
                fields,
                model=model,
                max_tokens=continuation.max_tokens,
                open_ended=request.open_ended,
            )
        except EngineError as error:
            if error.code != "bad_request":
                raise
            # The previous host accepted the buyer's request: what is refused is our way of continuing it.
            self._found.pop(model, None)
            raise cannot_continue(f"the server refuses it by {proven.method}: {error.message}") from error
        try:
            answer, reader = AnswerReader(request.prefix), ContinuationReader(continuation)
            guard, given = guard_of(request.body), 0
            async with contextlib.aclosing(events(response, answer)) as pieces:
                async for frames in pieces:
                    for frame in frames:
                        for fresh in before_stops(reader.feed(frame), guard):
                            given += fresh.tokens
                            yield fresh
                        if reader.stopped:
                            yield Finish("stop", Usage(continuation.prompt_tokens, given))
                            return
            last, finish = answer.last()
            for frame in before_stops([*reader.end(), *last], guard, ends=True):
                given += frame.tokens
                yield frame
            dropped = reader.dropped_tokens
            usage = openai_continue.segment_usage(finish.usage, continuation=continuation, dropped=dropped, given=given)
            yield Finish("stop" if guard is not None and guard.stopped else finish.finish_reason, usage)
            await read_to_end(response)
        finally:
            response.close()

    async def _as_tokens(
        self, request: EngineRequest, model: str, delivered: Delivered, continuation: ContinuationRequest
    ) -> ContinuationRequest:
        """Put the prompt and the delivered text into *continuation* as token ids."""
        found = self._found[model]
        assert found.tokenizer is not None, "this way was proven with it"
        try:
            ids = await found.tokenizer.prompt(self._upstream, model, openai_continue.template_fields(request.body))
            own = await found.tokenizer.text(self._upstream, model, delivered.text)
        except EngineError as error:
            raise cannot_continue(f"the server's tokenizer fails: {error.message}") from error
        fields = continuation.fields | {"prompt": [*ids, *own]}
        bound = fields["max_tokens"] if isinstance(fields["max_tokens"], int) else continuation.max_tokens
        if found.tokenizer.context_tokens:
            room = found.tokenizer.context_tokens - len(ids) - len(own)
            if room < 1:
                raise cannot_continue("the context is full")
            # A completion without a bound ends after 16 tokens in vLLM, while a chat runs to the end of the context.
            bound = min(bound, room) if bound else room
        if bound:
            fields["max_tokens"] = bound
        counted = len(ids) if found.tokenizer.counts_prompt else 0
        return msgspec.structs.replace(continuation, fields=fields, forced=len(own), prompt_tokens=counted)

    def _probe_soon(self, model: str) -> None:
        if model not in self._probes:
            task = asyncio.create_task(self._probe(model))
            self._probes[model] = task
            task.add_done_callback(lambda _: self._probes.pop(model, None))

    async def _probe(self, model: str) -> None:
        kinds = self._kinds_of(model)
        owned_by = self._owners.get(model, "")
        found = await openai_probe.find_methods(self._upstream, model, kinds=kinds, owned_by=owned_by)
        self._found[model] = found
        _log.info("%s at %s: %s", model, self._upstream.base, found.words or f"can't go on ({found.why_not})")
        if found.answers and self._claimed is None:
            stated = self._stated.get(model, Stated()).capabilities
            ask = partial(self._ask, model)
            self._capabilities[model] = await find_capabilities(ask, stated, self._quiet, thinks=found.thinks)

    async def _ask(self, model: str, body: Json) -> AsyncGenerator[Frame, None]:
        request = EngineRequest("chat", model, msgspec.json.encode(body))
        async with contextlib.aclosing(self._answer(_PATHS["chat"], request, model)) as items:
            async for item in items:
                if isinstance(item, Frame):
                    yield item

    def _able(self, model: str) -> dict[str, str]:
        """Return what is known of the capabilities of *model*: found out, or else claimed by its owner or server."""
        if "chat" not in self._kinds_of(model):
            return {}
        if self._claimed is not None:
            return {name: CLAIMED for name in FIELDS if name in self._claimed}
        return self._capabilities.get(model) or self._stated.get(model, Stated()).capabilities

    def _goes_on(self, model: str) -> bool:
        """Whether answers of every kind of *model* can be continued, chat above all."""
        found = self._found.get(model)
        methods = {proven.method for proven in found.methods} if found is not None else set()
        return (
            bool(methods - {ContinuationMethod.PLAIN})
            if "chat" in self._kinds_of(model)
            else ContinuationMethod.PLAIN in methods
        )

    def _kinds_of(self, model_id: str) -> list[str]:
        return self._kinds or _kinds(model_id)

    def _context(self, model: UpstreamModel) -> int:
        # Of what a model was trained for, a server may run less: that is the last to be believed.
        trained = model.meta.n_ctx_train if model.meta else None
        stated = model.context_in_force or self._stated.get(model.id, Stated()).context_tokens or trained or 0
        return min(stated, CONTEXT_TOKENS_MAX) if stated > 0 else self._context_tokens


def _offered_name(model_id: str) -> str:
    """Offer a file path (llama.cpp names models so) by the file's stem, anything else as it is."""
    if model_id.endswith(".gguf"):
        return re.split(r"[/\\]", model_id)[-1].removesuffix(".gguf")
    return model_id


def _kinds(model_id: str) -> list[str]:
    """Guess from the name, because servers do not report it: embedding models serve nothing else."""
    return ["embedding"] if _EMBEDDING_NAME.search(model_id) else ["chat", "completion"]
