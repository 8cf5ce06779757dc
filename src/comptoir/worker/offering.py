"""The engines of one worker together: started, measured, their models merged, priced and kept up to date."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

import msgspec

from comptoir.kinds import RUN, TOKEN_IN, TOKEN_OUT, Kinds
from comptoir.kit.money import run_price
from comptoir.link import ModelOffer
from comptoir.worker.engines.base import Continues, Engine, EngineError, ShowsLife
from comptoir.worker.events import EngineReady, EngineSkipped, OnEvent
from comptoir.worker.health import measure

_log = logging.getLogger(__name__)

FAILURES_BEFORE_WITHDRAWN = 2
"""Consecutive failures after which an engine's models are no longer offered: two probes, or a job and a probe."""

DOUBT_S = 0.25
"""How soon an engine is asked again that failed once; and the shortest time between two such questions, since every
job that fails asks for one."""

DOUBTED_PROBE_S = 1.5
"""Most seconds for the answer of an engine that failed before: within 2 s of the first failure it is off the offer."""

WITHDRAWN_S = 1.0
"""How often an engine that is off the offer is asked whether it is back."""

ALIVE_S = 1.0
"""How often it is looked whether an engine is there at all (`ShowsLife`)."""

BACKEND_CHARS_MAX = 64
"""Longest ``backend`` that a registration accepts."""

MODELS_MAX = 256
"""Most models that a host offers, and a registration accepts."""


FREE: Mapping[str, int] = {unit.name: 0 for unit in (TOKEN_IN, TOKEN_OUT, RUN)}
"""Default prices: the units of the built-in kinds are free."""


class Offering:
    """What this host offers.

    Args:
        prices: micro-dollars per million of each unit. What is sold in a unit without a price is not offered: it would
            be given away.
        model_prices: prices of single models, which override *prices*.
        promotions: whether jobs are taken that might be paid from promotional credit.
    """

    def __init__(
        self,
        *,
        kinds: Kinds,
        prices: Mapping[str, int],
        model_prices: Mapping[str, Mapping[str, int]],
        on_event: OnEvent,
        promotions: bool = True,
    ) -> None:
        self.models: list[ModelOffer] = []
        self.routes: dict[str, Engine] = {}
        self._kinds = kinds
        self._prices = prices
        self._model_prices = model_prices
        self._on_event = on_event
        self._promotions = promotions
        self._engines: list[Engine] = []
        self._listed: dict[int, list[ModelOffer]] = {}
        self._failures: dict[int, int] = {}
        """Failures of each engine, by its place, since it last answered."""
        self._doubted = asyncio.Event()
        self._asked_s = 0.0
        """When the engines were last asked; the loop's time."""
        self._left_out: set[str] = set()
        self._failure = EngineError("no_engine", "no engine was given: choose one with --engine")

    @property
    def backend(self) -> str:
        """Return the engines' names, joined: ``demo+openai``."""
        return "+".join(dict.fromkeys(engine.name for engine in self._engines))[:BACKEND_CHARS_MAX]

    async def start(self, engines: Sequence[Engine], *, measured: bool) -> None:
        """Start *engines*, skipping those that fail (an event reports it), and build the offer.

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
        """Note and report that the engine *name* can't be used."""
        self._failure = error
        self._on_event(EngineSkipped(name, error.message))

    def doubt(self, engine: Engine) -> None:
        """Have *engine* asked soon whether it still serves: a job failed at it."""
        for place, known in enumerate(self._engines):
            if known is engine:
                self._failures[place] = max(1, self._failures.get(place, 0))
                self._doubted.set()

    async def wait_for_doubt(self, until_s: float) -> bool:
        """Wait until an engine has to be asked whether it serves, but no longer than *until_s* (the loop's time).

        Returns whether that time has not come yet: ask only those (`refresh` with *doubted*), and wait again.
        """
        loop = asyncio.get_running_loop()
        while (left_s := until_s - loop.time()) > 0:
            if any(self._failures.values()):
                settled = min(count for count in self._failures.values() if count) >= FAILURES_BEFORE_WITHDRAWN
                next_s = self._asked_s + (WITHDRAWN_S if settled else DOUBT_S)
                if next_s <= loop.time():
                    return True
                left_s = min(left_s, next_s - loop.time())
            self._doubted.clear()
            try:
                async with asyncio.timeout(min(left_s, ALIVE_S)):
                    await self._doubted.wait()
            except TimeoutError:
                await self._look_whether_alive()
        return False

    async def _look_whether_alive(self) -> None:
        for place, engine in enumerate(self._engines):
            if isinstance(engine, ShowsLife) and not self._failures.get(place) and not await engine.alive():
                self._failures[place] = 1

    async def refresh(self, *, doubted: bool = False) -> bool:
        """Ask the engines again what they serve; return whether the offer changed.

        Args:
            doubted: ask only those that failed since they last answered.
        """
        places = [place for place in range(len(self._engines)) if not doubted or self._failures.get(place)]
        try:
            await asyncio.gather(*map(self._ask, places))
        finally:
            self._asked_s = asyncio.get_running_loop().time()
        before = self.models
        self._merge()
        return self.models != before

    async def _ask(self, place: int) -> None:
        engine, failures = self._engines[place], self._failures.get(place, 0)
        try:
            # One that is off the offer may take its time: it has more to be asked, and nobody waits for it.
            async with asyncio.timeout(DOUBTED_PROBE_S if 0 < failures < FAILURES_BEFORE_WITHDRAWN else None):
                models = await engine.models()
            self._listed[place] = self._priced(engine.name, models)
            self._failures[place] = 0
        except (EngineError, TimeoutError) as error:
            self._failures[place] = failures + 1
            if failures + 1 == FAILURES_BEFORE_WITHDRAWN:
                why = error.message if isinstance(error, EngineError) else "it does not answer"
                _log.warning("engine %s is unreachable, its models are withdrawn: %s", engine.name, why)
                self._listed[place] = []

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
        models = self._priced(engine.name, models)
        speed = await measure(engine, models[0], self._kinds) if measured else None
        if isinstance(engine, Continues):
            # After the measurement, which warms up the server, so that it answers at once.
            await engine.detect()
            models = self._priced(engine.name, await engine.models())
        self._listed[len(self._engines)] = models
        self._engines.append(engine)
        names = [model.name for model in models]
        first_token_s, tokens_per_s = (speed.first_token_s, speed.tokens_per_s) if speed else (0.0, 0.0)
        prices = {model.name: model.prices for model in models}
        runs = {name: run_price(by_unit[RUN.name]) for name, by_unit in prices.items() if RUN.name in by_unit}
        how = _continuation(engine, names)
        able = {model.name: model.capabilities for model in models if model.capabilities}
        self._on_event(EngineReady(engine.name, names, first_token_s, tokens_per_s, how, runs, prices, able))

    def _priced(self, engine: str, models: Sequence[ModelOffer]) -> list[ModelOffer]:
        """Return *models* with their prices, without those that can't be sold, each of which is logged once.

        Raises:
            EngineError: none of them can; the reason of the first.
        """
        priced: list[ModelOffer] = []
        failure: EngineError | None = None
        for model in models:
            try:
                priced.append(self._with_prices(model))
            except EngineError as error:
                failure = failure or error
                if model.name not in self._left_out:
                    self._left_out.add(model.name)
                    _log.warning("engine %s: %s", engine, error.message)
        if failure is not None and not priced:
            raise failure
        return priced

    def _with_prices(self, model: ModelOffer) -> ModelOffer:
        """Return *model* at its prices by unit, and at the two that older coordinators read."""
        kind = self._kinds.of_offer(model)
        if kind is None:
            known = f"{model.name!r} is of the kind {', '.join(model.kinds)}, which is not known here"
            raise EngineError("kind_unknown", f"{known}: name it with --kind package.module:Class")
        given = {**self._prices, **self._model_prices.get(model.name, {})}
        unit = kind.output
        if unit.name not in given:
            words = f"{model.name!r} is sold by the {unit.one} and has no price"
            raise EngineError(
                "no_price", f"{words}: give one with --unit-price {unit.name}=PRICE {unit.priced} (0: free)"
            )
        priced = msgspec.structs.replace(model, prices={each.name: given.get(each.name, 0) for each in kind.units})
        rate_in, rate_out = kind.rates(priced)
        return msgspec.structs.replace(
            priced,
            price_in_uusd_per_mtok=rate_in,
            price_out_uusd_per_mtok=rate_out,
            no_promotions=not self._promotions,
        )

    def _merge(self) -> None:
        """Merge all models into one list, at most `MODELS_MAX`; of two with one name the earlier engine's is kept."""
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
                models.append(model)
        self.models = models
        self.routes = routes


def _continuation(engine: Engine, names: Sequence[str]) -> str:
    """Return how the first model that can continues another host's frames; empty if none can."""
    if not isinstance(engine, Continues):
        return ""
    return next((how for how in map(engine.continuation, names) if how), "")
