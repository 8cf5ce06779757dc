"""The page in a real browser: it shows what is there, streams an answer, and asks no other machine for anything."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from comptoir.dialects import DIALECTS
from comptoir.dispatch.meters import Meters
from comptoir.dispatch.onboard import add_host
from comptoir.hosts import NewHost
from comptoir.link import ContainerCard, ModelOffer
from comptoir.web import shop
from tests.post import Post, open_post
from tests.web.thinking_engine import ThinkingEngine

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

WAIT_MS = 15_000


@dataclass
class Seen:
    """A page of a running post, and everything that went wrong on it."""

    post: Post
    page: Page
    complaints: list[str] = field(default_factory=list)


async def with_a_clock_to_move(page: Page) -> None:
    """Load the page anew, over a clock that `five_seconds_pass` moves on."""
    await page.clock.install()
    await page.reload()


async def five_seconds_pass(page: Page) -> None:
    """Let the page's own clock pass the time after which it looks for news."""
    await page.clock.fast_forward(5_000)


@pytest_asyncio.fixture(loop_scope="session")
async def seen(tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Seen]:
    """Open the page of a post with one real worker; whatever the browser complains of fails the test."""
    monkeypatch.setattr(shop, "FRESH_S", 0.0)  # The page's first look after a change shows it.
    async with (
        open_post(tmp_path) as post,
        post.worker(options={"per_s": 200.0, "tokens": 40}),
        await browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark") as context,
    ):
        page = await context.new_page()
        found = Seen(post, page)
        # "verbose" is Chromium's advice on markup, here that the viewer's password field could name its purpose.
        page.on("console", lambda one: one.type == "verbose" or found.complaints.append(f"{one.type}: {one.text}"))
        page.on("pageerror", lambda error: found.complaints.append(f"error: {error}"))
        here = (post.url, "data:")
        page.on("request", lambda one: one.url.startswith(here) or found.complaints.append(f"off host: {one.url}"))
        page.on("response", lambda one: one.status < 400 or found.complaints.append(f"{one.status}: {one.url}"))
        await page.goto(post.url + "/")
        yield found


class TestPage:
    async def test_it_shows_models_and_hosts_and_fits_a_phone(self, seen: Seen) -> None:
        assert await seen.page.locator("[data-model=trivial]").inner_text() != ""
        assert await seen.page.locator("[data-host]").count() == 1
        assert "1 host" in await seen.page.locator("#status").inner_text()
        assert await seen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert seen.complaints == []

    async def test_it_streams_an_answer_with_cost_and_receipt(self, seen: Seen) -> None:
        page = seen.page
        await page.fill("#key", seen.post.buyer_key)
        await page.fill("#prompt", "hi")
        await page.click("#send")
        await page.wait_for_selector("#facts:not([hidden])", timeout=WAIT_MS)

        assert await page.locator("#answer").inner_text() == " ".join(["tok"] * 40)
        # 40 tokens at $100 per million and the prompt's at $1.
        facts = await page.locator("#facts-text").inner_text()
        assert "40 tokens" in facts and "$0.004" in facts and "host_…" in facts
        await page.click("#receipt")
        await page.wait_for_selector("#receipt-text:not([hidden])", timeout=WAIT_MS)
        assert '"model": "trivial"' in await page.locator("#receipt-text").inner_text()
        assert seen.complaints == []

    async def test_who_waits_sees_for_how_long_and_what_the_model_thinks(self, seen: Seen) -> None:
        page = seen.page
        async with seen.post.worker(engine="tests.web.thinking_engine:ThinkingEngine", name="thinker"):
            await with_a_clock_to_move(page)
            await page.fill("#key", seen.post.buyer_key)
            await page.select_option("#model", "thinker")
            await page.click("#send")
            await page.locator("#stop:not([hidden])").wait_for(timeout=WAIT_MS)
            await page.clock.fast_forward(7_000)
            assert "Waiting for the first word… 7 s" in await page.locator("#said").inner_text()
            assert not await page.is_visible("#thoughts")

            ThinkingEngine.may_think.set()
            await page.get_by_text("Thinking…").first.wait_for(timeout=WAIT_MS)
            await page.click("#thoughts-title")
            await page.get_by_text("let me see").wait_for(timeout=WAIT_MS)
            await page.clock.fast_forward(2_000)
            assert (await page.locator("#said").inner_text()).startswith("Thinking… ")
            assert await page.locator("#answer").inner_text() == ""

            ThinkingEngine.may_answer.set()
            await page.get_by_text("What it thought").wait_for(timeout=WAIT_MS)
            await page.wait_for_selector("#facts:not([hidden])", timeout=WAIT_MS)

        assert await page.locator("#answer").inner_text() == "done"
        assert await page.locator("#said").inner_text() == ""
        assert seen.complaints == []

    async def test_the_key_is_remembered_for_this_tab_and_nowhere_else(self, seen: Seen) -> None:
        page = seen.page
        await page.fill("#key", seen.post.buyer_key)
        await page.click("#send")
        await page.wait_for_selector("#facts:not([hidden])", timeout=WAIT_MS)
        await page.reload()

        assert await page.input_value("#key") == seen.post.buyer_key
        assert await page.evaluate("localStorage.length") == 0 and await page.context.cookies() == []
        other = await page.context.new_page()
        await other.goto(seen.post.url + "/")
        assert await other.input_value("#key") == ""

    async def test_a_wrong_key_is_said_in_words(self, seen: Seen) -> None:
        page = seen.page
        await page.fill("#key", "ck_wrong")
        await page.click("#send")
        await page.wait_for_selector("#said.bad", timeout=WAIT_MS)

        assert "key" in (await page.locator("#said").inner_text()).lower()
        assert await page.is_enabled("#send")

    async def test_stopping_cancels_the_job(self, seen: Seen) -> None:
        page, post = seen.page, seen.post
        await page.fill("#key", post.buyer_key)
        # Slow enough that it can't be over before the button is pressed.
        await page.evaluate("document.querySelector('#model').append(new Option('slow', 'slow', true, true))")
        async with post.worker(options={"per_s": 5.0, "tokens": 500, "model": "slow"}, name="slow"):
            await page.click("#send")
            await page.locator("#answer:not(:empty)").wait_for(timeout=WAIT_MS)
            await page.click("#stop")
            await page.wait_for_selector("#facts:not([hidden])", timeout=WAIT_MS)

        assert post.core.state(Meters).ended.get("cancelled") == 1
        assert "Stopped" in await page.locator("#said").inner_text()
        facts = await page.locator("#facts-text").inner_text()
        assert "$" in facts and await page.is_visible("#receipt"), "what had arrived is paid for, and receipted"

    async def test_a_new_host_appears_by_itself_and_can_be_chosen(self, seen: Seen) -> None:
        await with_a_clock_to_move(seen.page)
        new = NewHost(gpu="<b>A100</b>", models=(ModelOffer("a<i>b", ["chat"]),))
        await add_host(seen.post.core, new)
        await five_seconds_pass(seen.page)

        await seen.page.locator("[data-host]").nth(1).wait_for(timeout=WAIT_MS)
        await seen.page.locator('#model option[value="a<i>b"]').wait_for(state="attached", timeout=WAIT_MS)
        assert "2 hosts" in await seen.page.locator("#status").inner_text()
        assert await seen.page.locator("#market b, #market i").count() == 0
        assert seen.complaints == []

    async def test_a_new_container_appears_by_itself_with_the_command_that_buys_a_run(self, seen: Seen) -> None:
        await with_a_clock_to_move(seen.page)
        assert await seen.page.locator("#run").is_hidden()
        card = ContainerCard("Says it <b>louder</b>.")
        offers = (ModelOffer("shout", ["container"], price_out_uusd_per_mtok=2_000_000_000, container=card),)
        await add_host(seen.post.core, NewHost(gpu="H100", models=offers))
        await five_seconds_pass(seen.page)

        row = seen.page.locator("[data-container=shout]")
        await row.wait_for(timeout=WAIT_MS)
        assert "$0.002" in await row.inner_text() and "Says it <b>louder</b>." in await row.inner_text()
        await seen.page.locator("#run").wait_for(timeout=WAIT_MS)
        assert '{"containers": ["shout"]' in await seen.page.locator("#run code").inner_text()
        assert await seen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert await seen.page.locator('#model option[value="shout"]').count() == 0
        assert seen.complaints == []

    async def test_all_of_it_can_be_reached_by_keyboard(self, seen: Seen) -> None:
        reached = []
        for _ in range(12):
            await seen.page.keyboard.press("Tab")
            reached.append(await seen.page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert [one for one in reached if one][:5] == ["skip", "model", "key", "prompt", "send"]


class TestReference:
    async def test_each_dialect_is_shown_by_the_viewer_under_the_policy_that_is_sent(self, seen: Seen) -> None:
        page = seen.page
        for dialect in DIALECTS:
            await page.goto(f"{seen.post.url}/docs/{dialect.name}")
            await page.locator(".opblock").first.wait_for(timeout=WAIT_MS)

            assert await page.locator(".opblock").count() == len(dialect.endpoints)
            assert dialect.description in await page.locator(".info .description").inner_text()
            for socket in dialect.sockets:
                assert socket.path in await page.locator(".info .description code").all_inner_texts()
            await page.locator(".opblock-summary-control").first.click()
            await page.locator(".opblock-body .responses-wrapper").wait_for(timeout=WAIT_MS)
            assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert await page.evaluate("document.documentElement.classList.contains('dark-mode')")
        assert seen.complaints == []

    async def test_a_call_can_be_tried_with_a_key_that_only_this_page_remembers(self, seen: Seen) -> None:
        page = seen.page
        await page.goto(f"{seen.post.url}/docs/native")
        await page.click("button.authorize")
        bearer = page.locator(".auth-container", has_text="bearer (http, Bearer)")
        await bearer.locator("input").fill(seen.post.buyer_key)
        await bearer.locator("button.authorize").click()
        await page.click(".btn-done")
        me = page.locator("#operations-default-native_get_me")
        await me.locator(".opblock-summary-control").click()
        await me.locator(".try-out__btn").click()
        await me.locator("button.execute").click()
        answer = me.locator(".live-responses-table .response")
        await answer.wait_for(timeout=WAIT_MS)

        assert "200" in await answer.inner_text() and "balance_uusd" in await answer.inner_text()
        kept = await page.evaluate("JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie")
        assert seen.post.buyer_key not in kept
        assert seen.complaints == []
