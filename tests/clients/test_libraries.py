"""Client libraries against the hostile engine: nothing raises that should not, the text is right, nothing is paid
twice."""

import asyncio
import json
from typing import Any

import pytest

from tests.clients.conftest import DriverOf, marked
from tests.clients.driven import CLIENTS, Client, Raised
from tests.clients.hostile import COST_UUSD, Hostile, installed, question
from tests.dialects.openai.shop import Shop
from tests.worker.odd_engine import MANNERS
from tests.worker.odd_spelling import Manner

pytestmark = pytest.mark.asyncio(loop_scope="module")

OFTEN = (
    "one object",
    "a pair in two halves",
    "bytes that are no UTF-8",
    "probabilities that are no numbers",
    "usage nan and nan",
    "ends with eos_token",
    "ends with 7",
    "fields of a choice",
    "fields of the delta",
    "null beside each text",
    "comments, names, numbers and empty events",
    "no [DONE] after a reason",
    "calls without index",
    "calls all with index 0, in fragments",
    "arguments as an object",
    "calls and an end of its own",
    "one object with calls",
    "one object that is an error",
    "an error as an event",
)
"""The manners that `make test` tries, one or two of each kind; `make clients` tries all."""

FORMS = {"text": False, "stream": False, "tools": True, "stream_tools": True}
"""Those that a manner can be asked for in, and whether they bring tools."""


KNOWN = {
    # It checks each field that OpenAI has too, here ``annotations`` of a form of their own.
    ("pydantic-ai", "text", "fields of the delta"): "UnexpectedModelBehavior",
    # It takes fragments for those of the call before, unless another begins.
    ("LlamaIndex", "stream_tools", "calls without index, by id"): "KeyError",
}
"""What a client raises all the same."""


def each(*forms: str) -> list[Any]:
    """Return (client, form) for all that have it; those that start slowly are for `make clients`."""
    return [
        pytest.param(client, form, id=f"{client.name}, {form}", marks=marked(client))
        for client in CLIENTS
        for form in forms
        if form in client.forms
    ]


async def paid(shop: Shop) -> int:
    """Return what the buyer has paid until now, when all is over."""
    await shop.idle()
    balance, held = await shop.balance()
    assert held == 0
    return -balance


async def asked(
    shop: Shop, driver_of: DriverOf, client: Client, *, form: str, name: str, retries: int = 0
) -> tuple[Any, Hostile, int]:
    """Have *client* ask for *name*; return what it made of it, the engine, and what was paid."""
    driver = await driver_of(client.environment)
    engine, before = installed(shop), await paid(shop)
    result = await driver.ask(driver=client.driver, form=form, prompt=question(name), retries=retries)
    return result, engine, await paid(shop) - before


def wanted(manner: Manner) -> str:
    """Return the text that a client ends with."""
    calls = manner.outcome.calls
    if not calls:
        return manner.outcome.texts[0]
    numbers = [next(iter(json.loads(arguments).values()), 0) for _, arguments in calls[0]]
    return "told: " + ", ".join(f"{name} {number}" for (name, _), number in zip(calls[0], numbers, strict=True))


async def wrong_with(shop: Shop, driver_of: DriverOf, client: Client, *, form: str, name: str) -> str:
    """Return what is wrong with what *client* made of a manner; empty when all is right."""
    manner = MANNERS[name]
    result, engine, cost = await asked(shop, driver_of, client, form=form, name=name)
    if manner.outcome.error:
        if not isinstance(result, Raised):
            return f"did not raise: {result!r}"
        # A whole answer that failed is free; of a stream what came before is paid, a piece here.
        return "" if cost == 0 or ("stream" in form and cost <= COST_UUSD) else f"{result} for {cost}"
    if (client.name, form, name) in KNOWN:
        return "" if getattr(result, "type", "") == KNOWN[client.name, form, name] else f"no longer so: {result!r}"
    turns = 2 if manner.outcome.calls else 1
    if result != wanted(manner):
        return f"{result!r}"
    return "" if engine.tries[name] == turns and cost > 0 else f"{engine.tries} for {cost}"


def fits(manner: Manner, form: str) -> bool:
    """Say whether *manner* can be asked for so: one answer, and in calls nothing but what our tools take."""
    outcome = manner.outcome
    return manner.n == 1 and bool(outcome.calls) == FORMS[form] and not (outcome.calls and outcome.texts[0])


async def check(shop: Shop, driver_of: DriverOf, client: Client, *, form: str, names: tuple[str, ...]) -> None:
    fitting = [name for name in names if fits(MANNERS[name], form)]
    assert len(fitting) > 4
    wrong = {name: await wrong_with(shop, driver_of, client, form=form, name=name) for name in fitting}
    said = [f"{name}: {why[:1000]}" for name, why in wrong.items() if why]
    assert not said, "\n".join(said)


@pytest.mark.parametrize(("client", "form"), each(*FORMS))
async def test_what_engines_send_is_understood(shop: Shop, driver_of: DriverOf, client: Client, form: str) -> None:
    await check(shop, driver_of, client, form=form, names=OFTEN)


@pytest.mark.clients
@pytest.mark.parametrize(("client", "form"), each(*FORMS))
async def test_all_of_it_is(shop: Shop, driver_of: DriverOf, client: Client, form: str) -> None:
    await check(shop, driver_of, client, form=form, names=tuple(MANNERS))


@pytest.mark.parametrize("name", ["plain", "busy once", "refuses stream_options"])
@pytest.mark.parametrize(("client", "form"), each("text", "stream"))
async def test_it_is_patient_and_pays_once(
    shop: Shop, driver_of: DriverOf, client: Client, form: str, name: str
) -> None:
    """A client asks again when it is told to, and is charged for one answer."""
    result, engine, cost = await asked(shop, driver_of, client, form=form, name=name, retries=2)

    assert (result, cost) == ("ab", COST_UUSD)
    assert engine.tries[name] == 1 or name in ("busy once", "refuses stream_options")


@pytest.mark.parametrize(("client", "form"), each("structured", "structured_by_schema", "stream_structured"))
async def test_structured_output_is_read(shop: Shop, driver_of: DriverOf, client: Client, form: str) -> None:
    result, engine, cost = await asked(shop, driver_of, client, form=form, name="structured")

    assert (result, engine.tries["structured"], cost) == ("Bern", 1, COST_UUSD)


@pytest.mark.parametrize(("client", "form"), each("leave"))
async def test_leaving_a_stream_ends_it(shop: Shop, driver_of: DriverOf, client: Client, form: str) -> None:
    """Who hangs up after the first piece stops the engine, and pays for what came until then."""
    result, _, cost = await asked(shop, driver_of, client, form=form, name="endless")

    async with asyncio.timeout(5):
        await shop.upstream.gone.wait()
    assert result in ("x", "xx", "xxx")
    assert 0 < cost < 50 * COST_UUSD


class TestABrokenAnswer:
    """An engine whose connection breaks after three pieces."""

    @pytest.mark.parametrize(("client", "form"), each("stream"))
    async def test_a_stream_raises_and_what_came_is_paid_once(
        self, shop: Shop, driver_of: DriverOf, client: Client, form: str
    ) -> None:
        result, engine, cost = await asked(
            shop, driver_of, client, form=form, name="closes after the third piece", retries=2
        )

        assert isinstance(result, Raised)
        assert (engine.tries.total(), cost) == (1, 3 * 100)

    @pytest.mark.clients
    @pytest.mark.parametrize(("client", "form"), each("text"))
    async def test_a_whole_answer_is_asked_for_again_and_paid_once(
        self, shop: Shop, driver_of: DriverOf, client: Client, form: str
    ) -> None:
        """Half a second passes in the client before it asks again."""
        result, engine, cost = await asked(
            shop, driver_of, client, form=form, name="closes once after the third piece", retries=2
        )

        assert (result, cost) == ("ab", COST_UUSD)
        assert engine.tries.total() == 2

    @pytest.mark.clients
    @pytest.mark.parametrize(("client", "form"), each("text"))
    async def test_none_at_all_is_free(self, shop: Shop, driver_of: DriverOf, client: Client, form: str) -> None:
        result, engine, cost = await asked(
            shop, driver_of, client, form=form, name="closes after the third piece", retries=2
        )

        assert isinstance(result, Raised)
        assert (engine.tries.total() > 1, cost) == (True, 0)
