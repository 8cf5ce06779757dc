"""The engines of one worker together: started, measured, their models merged, priced and kept up to date."""

import logging
from collections.abc import Mapping, Sequence

import msgspec

from comptoir.kit.money import TOKENS_PER_MTOK
from comptoir.link import ModelOffer
from comptoir.worker.engines.base import Continues, Engine, EngineError
from comptoir.worker.events import EngineReady, EngineSkipped, OnEvent
from comptoir.worker.health import measure

_log = logging.getLogger(__name__)

FAILURES_BEFORE_WITHDRAWN = 2
"""Consecutive failures to list models after which an engine's models are no longer offered."""


BACKEND_CHARS_MAX = 64
"""Longest ``backend`` a registration takes."""

MODELS_MAX = 256
"""Most models a host offers; a registration takes no more."""


class Price(msgspec.Struct, frozen=True):
    """Micro-dollars per million tokens, and for a container per run."""

    in_uusd_per_mtok: int = 0
    out_uusd_per_mtok: int = 0
    run_uusd: int = 0

    def on(self, offer: ModelOffer) -> ModelOffer:
        """Return *offer* at this price; a run counts as a token on the link."""
        by_the_run = offer.container is not None
        return msgspec.structs.replace(
            offer,
            price_in_uusd_per_mtok=0 if by_the_run else self.in_uusd_per_mtok,
            price_out_uusd_per_mtok=self.run_uusd * TOKENS_PER_MTOK if by_the_run else self.out_uusd_per_mtok,
        )


class Offering:
    """What this host offers: *price* for every model that *model_prices* does not name."""

    def __init__(self, *, price: Price, model_prices: Mapping[str, Price], on_event: OnEvent) -> None:
        self.models: list[ModelOffer] = []
        self.routes: dict[str, Engine] = {}
        self._price = price
        self._model_prices = model_prices
        self._on_event = on_event
        self._engines: list[Engine] = []
        self._listed: dict[int, list[ModelOffer]] = {}
        self._failures: dict[int, int] = {}
        self._failure = EngineError("no_engine", "no engine was given: choose one with --engine")

    @property
    def backend(self) -> str:
        """Return the engines' names, joined: ``demo+openai``."""
        return "+".join(dict.fromkeys(engine.name for engine in self._engines))[:BACKEND_CHARS_MAX]

    async def start(self, engines: Sequence[Engine], *, measured: bool) -> None:
        """Start *engines*, leaving out those that fail (said by an event), and build the offer.

        Raises:
            EngineError: none of them works; the last one's reason.
        """
        for engine in engines:
            try:
                await self._start_one(engine, measured=measured)
            except EngineError as error:
                self.skipped(engine.name, error)
                await engine.close()
        if not self._engines:
            raise self._failure
        self._merge()

    def skipped(self, name: str, error: EngineError) -> None:
        """Note (and say) that the engine *name* can't be used."""
        self._failure = error
        self._on_event(EngineSkipped(name, error.message))

    async def refresh(self) -> bool:
        """Ask the engines again what they serve; return whether the offer changed."""
        for place, engine in enumerate(self._engines):
            try:
                self._listed[place] = await engine.models()
                self._failures[place] = 0
            except EngineError as error:
                self._failures[place] = self._failures.get(place, 0) + 1
                if self._failures[place] == FAILURES_BEFORE_WITHDRAWN:
                    _log.warning("engine %s is away, its models are withdrawn: %s", engine.name, error.message)
                    self._listed[place] = []
        before = self.models
        self._merge()
        return self.models != before

    async def close(self) -> None:
        """Close all engines."""
        for engine in self._engines:
            try:
                await engine.close()
            except Exception:  # One engine that can't close must not keep the others open.
                _log.exception("engine %s failed to close", engine.name)

    async def _start_one(self, engine: Engine, *, measured: bool) -> None:
        await engine.start()
        models = await engine.models()
        if not models:
            raise EngineError("no_models", f"engine {engine.name} serves no model")
        speed = await measure(engine, models[0]) if measured else None
        if isinstance(engine, Continues):
            # After the measure, which warms a server up: what is asked now is answered at once.
            await engine.detect()
            models = await engine.models()
        self._listed[len(self._engines)] = models
        self._engines.append(engine)
        names = [model.name for model in models]
        first_token_s, tokens_per_s = (speed.first_token_s, speed.tokens_per_s) if speed else (0.0, 0.0)
        runs = {model.name: self._price_of(model).run_uusd for model in models if model.container is not None}
        self._on_event(EngineReady(engine.name, names, first_token_s, tokens_per_s, _continuation(engine, names), runs))

    def _price_of(self, model: ModelOffer) -> Price:
        return self._model_prices.get(model.name, self._price)

    def _merge(self) -> None:
        """Put all models into one list, `MODELS_MAX` at most; of two with one name the earlier engine's stays."""
        models: list[ModelOffer] = []
        routes: dict[str, Engine] = {}
        for place, engine in enumerate(self._engines):
            for model in self._listed[place]:
                if model.name in routes:
                    continue
                if len(models) == MODELS_MAX:
                    _log.warning("only the first %d models are offered; choose with the engine's aliases", MODELS_MAX)
                    break
                routes[model.name] = engine
                models.append(self._price_of(model).on(model))
        self.models = models
        self.routes = routes


def _continuation(engine: Engine, names: Sequence[str]) -> str:
    """Say how the first model that does goes on from another host's frames; empty without any."""
    if not isinstance(engine, Continues):
        return ""
    return next((how for how in map(engine.continuation, names) if how), "")
