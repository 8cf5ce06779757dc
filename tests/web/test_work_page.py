"""The page of programs and jobs in a real browser: it follows a job, plays what it made, and runs nothing of it."""

import asyncio
import base64
import io
import json
import struct
import wave
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from comptoir.kinds import Kinds
from comptoir.worker.engines.ffmpeg.program import find_program
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker
from tests.cli.stepping import ENGINE, TARGET
from tests.post import Post, open_post
from tests.web.test_page import WAIT_MS, Seen

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def seen(tmp_path: Path, browser: Browser) -> AsyncIterator[Seen]:
    """Open the page of a post with a host of a toy kind of programs; whatever the browser complains of is kept."""
    async with (
        open_post(tmp_path, kinds=(TARGET,)) as post,
        post.worker(engine=ENGINE, kinds=(TARGET,), prices={"page": 10_000_000_000}),
        await browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark") as context,
    ):
        page = await context.new_page()
        found = Seen(post, page)
        page.on("console", lambda one: one.type == "verbose" or found.complaints.append(f"{one.type}: {one.text}"))
        page.on("pageerror", lambda error: found.complaints.append(f"error: {error}"))
        page.on("request", lambda one: one.url.startswith(post.url) or found.complaints.append(f"off host: {one.url}"))
        page.on("response", lambda one: one.status < 400 or found.complaints.append(f"{one.status}: {one.url}"))
        await page.goto(post.url + "/work")
        yield found


async def buy(post: Post, *taken: dict[str, Any], **fields: Any) -> str:
    """Buy a job that takes these steps; return its id."""
    order = {"kind": "steps", "model": "stepper", "body": {"steps": taken, **fields}}
    headers = {"authorization": f"Bearer {post.buyer_key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(post.url + "/house/jobs", json=order) as answer,
    ):
        assert answer.status == 201, await answer.text()
        return str((await answer.json())["id"])


async def open_job(seen: Seen, job: str) -> None:
    await seen.page.fill("#key", seen.post.buyer_key)
    await seen.page.dispatch_event("#key", "change")
    await seen.page.evaluate("(job) => (location.hash = job)", job)


async def come_true(page: Page, words: str) -> None:
    """Wait until an expression is true: the page's policy forbids Playwright's own way, which evaluates text."""
    async with asyncio.timeout(WAIT_MS / 1000):
        while not await page.evaluate(words):
            await asyncio.sleep(0.02)


def sound() -> bytes:
    """Return half a second of silence."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setparams((1, 1, 8_000, 4_000, "NONE", ""))
        file.writeframes(b"\x80" * 4_000)
    return made.getvalue()


def picture() -> bytes:
    """Return a picture of two pixels by one."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 2, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0\0\xff")) + chunk(b"IEND", b"")
    )


def made(name: str, data: bytes, media: str) -> dict[str, Any]:
    return {"artifact": {"name": name, "base64": base64.b64encode(data).decode(), "media": media}}


RUNS = b'<svg xmlns="http://www.w3.org/2000/svg"><script>window.ran = top.ran = true</script></svg>'


class TestJob:
    async def test_a_running_job_is_followed_to_its_end(self, seen: Seen, tmp_path: Path) -> None:
        page, go = seen.page, tmp_path / "go"
        job = await buy(
            seen.post, {"out": "first <b>line</b>\n"}, {"err": "careful\n"}, {"page": 1},
            {"progress": {"done": 0.25, "note": "inking"}}, {"wait": str(go)}, {"out": "last\n"}, {"result": {"n": 3}},
        )  # fmt: skip
        await open_job(seen, job)
        await page.get_by_text("25 % · inking").wait_for(timeout=WAIT_MS)

        assert "first <b>line</b>\ncareful" in await page.locator("#job-log").inner_text()
        assert await page.locator("#job-log .stderr").inner_text() == "careful\n"
        assert await page.locator("#job-log b").count() == 0
        assert "running" in await page.locator("#job-facts").inner_text()
        assert await page.is_visible("#cancel")
        go.touch()
        await page.wait_for_selector("#receipt:not([hidden])", timeout=WAIT_MS)

        assert (await page.locator("#job-log").inner_text()).endswith("last\n")
        assert json.loads(await page.locator("#job-result").inner_text()) == {"n": 3}
        assert "completed · 1 page · $0.01 · at host_…" in await page.locator("#job-facts").inner_text()
        await page.click("#receipt")
        await page.wait_for_selector("#receipt-text:not([hidden])", timeout=WAIT_MS)
        assert '"model": "stepper"' in await page.locator("#receipt-text").inner_text()
        await page.locator(f'#jobs [data-job="{job}"]').wait_for(timeout=WAIT_MS)
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert seen.complaints == []

    async def test_what_a_host_that_begins_again_takes_back_is_gone(self, seen: Seen) -> None:
        job = await buy(seen.post, {"out": "old\n"}, {"result": 1}, {"begun_again": True}, {"out": "new\n"})
        await open_job(seen, job)
        await seen.page.get_by_text("new", exact=False).first.wait_for(timeout=WAIT_MS)

        log = await seen.page.locator("#job-log").inner_text()
        assert "old" not in log and "began again from the start" in log and "new" in log
        assert not await seen.page.is_visible("#job-result")

    async def test_cancelling_stops_it(self, seen: Seen, tmp_path: Path) -> None:
        job = await buy(seen.post, {"page": 1}, {"out": "working\n"}, {"wait": str(tmp_path / "never")})
        await open_job(seen, job)
        await seen.page.get_by_text("working").wait_for(timeout=WAIT_MS)
        await seen.page.click("#cancel")

        await seen.page.get_by_text("cancelled · 1 page · $0.01").wait_for(timeout=WAIT_MS)

    async def test_a_program_that_failed_says_why(self, seen: Seen) -> None:
        failed = {"reason": "exit", "message": "it ended with 3", "exit_code": 3}
        await open_job(seen, await buy(seen.post, {"failed": failed}, {"finish": "exit"}))

        await seen.page.get_by_text("It ended with 3").wait_for(timeout=WAIT_MS)

    async def test_sound_and_pictures_are_shown_and_nothing_that_was_made_runs(self, seen: Seen) -> None:
        """What a file is, is seen from its bytes: hosts may call it whatever they like."""
        page = seen.page
        job = await buy(
            seen.post,
            made("a.wav", sound(), "text/html"), made("b.png", picture(), ""), made("c.svg", RUNS, "image/svg+xml"),
            made("d.png", b"<script>window.ran = true</script>", "image/png"), made("e.bin", b"\0\1\2", "video/mp4"),
        )  # fmt: skip
        await open_job(seen, job)
        await page.wait_for_selector("#receipt:not([hidden])", timeout=WAIT_MS)
        await come_true(page, "document.querySelectorAll('#artifacts :is(audio, img, pre, p)').length === 5")

        assert await page.locator("#artifacts .name").all_inner_texts() == ["a.wav", "b.png", "c.svg", "d.png", "e.bin"]
        await come_true(page, "document.querySelector('#artifacts audio').duration === 0.5")
        await come_true(page, "document.querySelector('#artifacts img').naturalWidth === 2")
        assert await page.locator("#artifacts pre").all_inner_texts() == [
            RUNS.decode(),
            "<script>window.ran = true</script>",
        ]
        assert await page.evaluate("window.ran") is None
        assert seen.complaints == []

    async def test_a_result_that_is_opened_by_itself_runs_nothing(self, seen: Seen) -> None:
        """Its link is opened in a tab of its own: the browser downloads it."""
        page = seen.page
        job = await buy(seen.post, made("page.html", b"<script>document.title = 'ran'</script>", "text/html"))
        await open_job(seen, job)
        async with page.expect_download(timeout=WAIT_MS) as download:
            await page.get_by_role("button", name="Download").click()

        found = await download.value
        assert found.suggested_filename == "page.html"
        assert (await asyncio.to_thread((await found.path()).read_bytes)).startswith(b"<script>")

    async def test_inputs_are_listed(self, seen: Seen) -> None:
        headers = {"authorization": f"Bearer {seen.post.buyer_key}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(seen.post.url + "/house/files?name=in.csv", data=b"a,b") as answer,
        ):
            file = (await answer.json())["id"]
        await open_job(seen, await buy(seen.post, {"page": 1}, inputs=[{"file": file}]))

        await seen.page.locator("#inputs .name", has_text="in.csv").wait_for(timeout=WAIT_MS)
        assert "3 bytes" in await seen.page.locator("#inputs").inner_text()

    async def test_a_wrong_key_is_said_in_words(self, seen: Seen) -> None:
        await seen.page.fill("#key", "ck_wrong")
        await seen.page.dispatch_event("#key", "change")

        await seen.page.locator("#jobs .none", has_text="key").wait_for(timeout=WAIT_MS)


@pytest_asyncio.fixture(loop_scope="session")
async def shop(tmp_path: Path, browser: Browser) -> AsyncIterator[Seen]:
    """Open the page of a post with a host of both kinds of programs that the page can order."""
    async with open_post(tmp_path) as post:
        stop = asyncio.Event()
        config = WorkerConfig(
            url=post.url, engines=[EngineSpec("python", {}), EngineSpec("ffmpeg", {})], measure=False,
            prices={unit.name: unit.usual_rate for unit in Kinds().units.values() if unit.usual_rate},
            state_dir=str(tmp_path / "worker"), drain_s=0.0,
        )  # fmt: skip
        working = asyncio.create_task(run_worker(config, stop=stop))
        try:
            await post.until_linked()
            async with await browser.new_context(viewport={"width": 390, "height": 844}) as context:
                page = await context.new_page()
                await page.goto(post.url + "/work")
                await page.fill("#key", post.buyer_key)
                yield Seen(post, page)
        finally:
            stop.set()
            await asyncio.wait_for(working, 20)


class TestOrder:
    async def test_a_program_with_a_file_from_the_disk_runs(self, shop: Seen, tmp_path: Path) -> None:
        page = shop.page
        (tmp_path / "data.csv").write_text("1\n2\n3\n")
        await page.select_option("#offer", "python")
        await page.fill("#code", "numbers = list(map(int, open('data.csv')))\nprint('sum', sum(numbers))")
        await page.set_input_files("#python-files", tmp_path / "data.csv")
        await page.click("#send")
        await page.wait_for_selector("#receipt:not([hidden])", timeout=WAIT_MS)

        assert await page.locator("#job-log").inner_text() == "sum 6\n"
        assert "python (python) · completed" in await page.locator("#job-facts").inner_text()
        assert "data.csv" in await page.locator("#inputs").inner_text()
        assert await page.locator("#jobs tr").count() == 1

    async def test_a_film_is_converted_and_plays(self, shop: Seen, tmp_path: Path) -> None:
        page, film = shop.page, tmp_path / "in.mp4"
        program = find_program().ffmpeg
        made = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=1", "-pix_fmt", "yuv420p", str(film))
        running = await asyncio.create_subprocess_exec(program, "-v", "error", *made)
        assert await running.wait() == 0
        await page.select_option("#offer", "ffmpeg")
        await page.set_input_files("#ffmpeg-file", film)
        await page.select_option("#format", "webm")
        await page.fill("#resolution", "32x24")
        await page.click("#send")
        await page.wait_for_selector("#artifacts video", timeout=WAIT_MS)

        await come_true(page, "document.querySelector('#artifacts video').videoWidth === 32")
        assert await page.evaluate("document.querySelector('#artifacts video').play().then(() => true)")

    async def test_the_front_page_lists_them_within_its_width(self, shop: Seen) -> None:
        """A host of films can do a dozen things, and each is a mark beside its name."""
        await shop.page.set_viewport_size({"width": 1120, "height": 860})
        await shop.page.goto(shop.post.url + "/")
        table = shop.page.locator("section[aria-labelledby=others-title] .scroll")

        assert await table.locator("[data-other=ffmpeg] .mark").count() > 8
        assert await table.evaluate("(box) => box.scrollWidth <= box.clientWidth")

    async def test_what_is_refused_is_said(self, shop: Seen) -> None:
        await shop.page.select_option("#offer", "python")
        await shop.page.fill("#requirements", "numpy; evil")
        await shop.page.click("#send")

        await shop.page.locator("#said.bad", has_text="requirements[0]").wait_for(timeout=WAIT_MS)
