"""What a worker offers, at which prices: by unit, and the two numbers that older coordinators read."""

import asyncio
from collections.abc import Mapping

import pytest

from comptoir.kinds import Kinds, load_kinds
from comptoir.link import ModelOffer
from comptoir.worker import offering as offering_module
from comptoir.worker.engines.base import Engine, EngineError
from comptoir.worker.engines.openai_upstream import LISTENS_TIMEOUT_S
from comptoir.worker.events import EngineReady, Event
from comptoir.worker.offering import (
    ALIVE_S,
    DOUBT_S,
    DOUBTED_PROBE_S,
    FAILURES_BEFORE_WITHDRAWN,
    FREE,
    Offering,
)
from tests.selling import TARGET, Scribe
from tests.worker.scripted_engine import ScriptedEngine, answer

LETTERS = load_kinds([TARGET])
CHAT = ModelOffer("m", ["chat", "completion"])


def serving(*models: ModelOffer) -> Engine:
    return ScriptedEngine(*answer("a"), models=list(models))


async def offered(
    engine: Engine,
    prices: Mapping[str, int],
    *,
    kinds: Kinds = LETTERS,
    of_models: Mapping[str, Mapping[str, int]] | None = None,
    measured: bool = False,
) -> tuple[list[ModelOffer], list[Event]]:
    events: list[Event] = []
    offering = Offering(kinds=kinds, prices=prices, model_prices=of_models or {}, on_event=events.append)
    await offering.start([engine], measured=measured)
    return offering.models, events


class TestDoubt:
    def test_an_engine_that_failed_once_is_off_within_two_seconds(self) -> None:
        """A probe that fails, the next one, and as long as that may take; or a failed job and a probe."""
        assert FAILURES_BEFORE_WITHDRAWN == 2
        assert DOUBT_S + DOUBTED_PROBE_S < 2
        assert ALIVE_S + LISTENS_TIMEOUT_S <= 2

    async def test_what_is_asked_again_and_again_is_asked_at_intervals(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = serving(CHAT)
        offering = Offering(kinds=LETTERS, prices=FREE, model_prices={}, on_event=[].append)
        await offering.start([engine], measured=False)
        now = asyncio.get_running_loop().time
        monkeypatch.setattr(offering_module, "DOUBT_S", 3600.0)
        await offering.refresh()

        offering.doubt(engine)
        assert not await offering.wait_for_doubt(now() + 0.001)

        monkeypatch.setattr(offering_module, "DOUBT_S", 0.0)
        assert await offering.wait_for_doubt(now() + 60)
        assert not await offering.refresh(doubted=True)
        assert not await offering.wait_for_doubt(now() + 0.001)


class TestPrices:
    @pytest.mark.parametrize(
        ("prices", "of_models", "by_unit", "older"),
        [
            (FREE, {}, {"token_in": 0, "token_out": 0}, (0, 0)),
            ({"token_in": 1, "token_out": 2, "run": 3}, {}, {"token_in": 1, "token_out": 2}, (1, 2)),
            ({"token_out": 2}, {"m": {"token_in": 5}}, {"token_in": 5, "token_out": 2}, (5, 2)),
            ({"token_out": 2}, {"m": {"token_out": 0}, "n": {"token_out": 7}}, {"token_in": 0, "token_out": 0}, (0, 0)),
        ],
    )
    async def test_a_model_costs_what_its_own_prices_say_then_everybodys(
        self,
        prices: Mapping[str, int],
        of_models: dict[str, dict[str, int]],
        by_unit: dict[str, int],
        older: tuple[int, int],
    ) -> None:
        (model,), _ = await offered(serving(CHAT), prices, of_models=of_models)

        assert model.prices == by_unit
        assert (model.price_in_uusd_per_mtok, model.price_out_uusd_per_mtok) == older

    @pytest.mark.parametrize("promotions", [True, False])
    async def test_promotional_credit_is_taken_unless_its_owner_wants_none(self, promotions: bool) -> None:
        offering = Offering(kinds=LETTERS, prices=FREE, model_prices={}, on_event=[].append, promotions=promotions)

        await offering.start([serving(CHAT)], measured=False)

        assert [model.no_promotions for model in offering.models] == [not promotions]

    async def test_a_kind_that_does_not_ship_is_measured_priced_and_told(self) -> None:
        (model,), events = await offered(Scribe(), {"byte": 200_000}, measured=True)

        assert (model.name, model.prices, model.price_out_uusd_per_mtok) == ("scribe", {"byte": 200_000}, 200_000)
        (ready,) = events
        assert isinstance(ready, EngineReady)
        assert (ready.prices, ready.run_prices_uusd) == ({"scribe": {"byte": 200_000}}, {})
        assert ready.first_token_s > 0 and ready.tokens_per_s > 0

    @pytest.mark.parametrize(
        ("kinds", "prices", "why"),
        [
            (Kinds(), FREE, "'scribe' is of the kind letters, which is not known here: name it with --kind"),
            (
                LETTERS,
                FREE,
                "'scribe' is sold by the byte and has no price: give one with --unit-price byte=PRICE per kilobyte",
            ),
        ],
    )
    async def test_nothing_is_given_away(self, kinds: Kinds, prices: Mapping[str, int], why: str) -> None:
        with pytest.raises(EngineError) as refused:
            await offered(Scribe(), prices, kinds=kinds)

        assert why in refused.value.message

    async def test_what_can_be_sold_is_offered_beside_what_can_not(self) -> None:
        models, _ = await offered(serving(ModelOffer("scribe", ["letters"]), CHAT), FREE)

        assert [model.name for model in models] == ["m"]
