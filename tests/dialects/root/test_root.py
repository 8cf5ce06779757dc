"""The shared paths at the root: health, metrics, the page without a browser, and the references."""

import asyncio
import re
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from comptoir import __version__
from comptoir.app import open_core
from comptoir.dialects import DIALECTS
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.duties import Duties, Duty
from comptoir.dispatch.meters import Meters
from comptoir.dispatch.onboard import add_host
from comptoir.dispatch.submit import Order, submit
from comptoir.hosts import NewHost
from comptoir.jobs import Reader
from comptoir.kit.db import Tx
from comptoir.link import ContainerCard, ModelOffer
from tests.at_once import at_once
from tests.post import Post, open_post

EVIL = "x</td><script>alert(1)</script>' \"$(reboot)"


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    """Give a running post without hosts, whose health is looked at anew each time."""
    async with open_post(tmp_path, health_cache_s=0.0) as one:
        yield one


async def get(post: Post, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    async with aiohttp.ClientSession(post.url) as session, session.get(path, headers=headers) as response:
        return response.status, {name.lower(): value for name, value in response.headers.items()}, await response.text()


async def get_json(post: Post, path: str, **headers: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession(post.url) as session, session.get(path, headers=headers) as response:
        return response.status, await response.json()


async def register(post: Post, name: str) -> None:
    await add_host(post.core, NewHost(gpu=name, models=(ModelOffer(name, ["chat"]),)))


async def register_container(post: Post, name: str, *, external: bool = True) -> None:
    card = ContainerCard(f"Says <b>{name}</b>.", external=external)
    offer = ModelOffer(name, ["container"], price_out_uusd_per_mtok=2_500 * 1_000_000, container=card)
    await add_host(post.core, NewHost(gpu=name, models=(offer,)))


class TestHome:
    async def test_programs_get_json(self, post: Post) -> None:
        assert await get_json(post, "/") == (
            200,
            {"name": "Comptoir", "version": __version__, "docs": f"{post.url}/docs"},
        )

    async def test_browsers_get_the_page(self, post: Post) -> None:
        status, headers, text = await get(post, "/", accept="text/html,application/xhtml+xml,*/*;q=0.8")

        assert status == 200 and headers["content-type"].startswith("text/html") and "<h1>Comptoir</h1>" in text
        assert headers["vary"] == "accept"

    @pytest.mark.parametrize(("path", "media"), [("/", None), ("/work", "media-src 'self'")])
    async def test_nothing_inline_or_foreign_is_allowed_nor_there(
        self, post: Post, path: str, media: str | None
    ) -> None:
        _, headers, text = await get(post, path, accept="text/html")

        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert next((part for part in policy.split("; ") if part.startswith("media-src")), None) == media
        assert not re.search(r"<script(?![^>]*\ssrc=)|\sstyle=|<style|\son\w+=|javascript:", text)
        assert set(re.findall(r'(?:src|href)="([^"]*)"', text)) <= {
            "/", "/work", "/docs", "/health", "/metrics", "#ask-title", "#order-title", *re.findall(r"/ui/[\w.]+", text),
        }  # fmt: skip

    async def test_what_hosts_are_called_is_text(self, post: Post) -> None:
        await register(post, EVIL)
        _, _, text = await get(post, "/", accept="text/html")

        assert "<script>alert" not in text and "&lt;script&gt;alert" in text

    async def test_no_name_that_a_shell_would_read_is_put_into_a_command(self, post: Post) -> None:
        await register(post, EVIL)
        _, _, text = await get(post, "/", accept="text/html")

        commands = "".join(re.findall(r"<pre.*?</pre>", text, re.DOTALL))
        assert "reboot" not in commands and "MODEL" in commands

    async def test_without_containers_nothing_speaks_of_them(self, tmp_path: Path) -> None:
        async with open_post(tmp_path) as post:
            await register(post, "model")
            _, _, text = await get(post, "/", accept="text/html")

        assert "containers-title" not in text and '<figure id="run" hidden>' in text
        assert "1 model · 0 jobs" in text

    async def test_a_container_has_its_price_its_mark_and_a_command(self, tmp_path: Path) -> None:
        async with open_post(tmp_path) as post:
            await register_container(post, "inside", external=False)
            await register_container(post, "shout")
            _, _, text = await get(post, "/", accept="text/html")

        row = next(line for line in text.split("<tr ") if line.startswith('data-container="shout"'))
        assert "$0.0025" in row and "0.25" in row and ">first<" in row and "Says &lt;b&gt;shout&lt;/b&gt;." in row
        assert text.count(">private<") == 1 and "2 containers" in text
        assert f"curl {post.url}/api/jobs" in text and '<span id="run-name">shout</span>' in text

    async def test_no_container_that_a_shell_would_read_is_put_into_a_command(self, tmp_path: Path) -> None:
        async with open_post(tmp_path) as post:
            await register_container(post, EVIL.replace(",", ""))
            _, _, text = await get(post, "/", accept="text/html")

        assert '<span id="run-name">CONTAINER</span>' in text and "<script>alert" not in text

    async def test_a_forged_host_header_does_not_reach_the_commands(self, tmp_path: Path) -> None:
        async with open_post(tmp_path, server_names=("*",)) as post:
            status, _, text = await get(post, "/", accept="text/html", host="a'$(reboot).example")
        assert status == 200 and "reboot" not in text

    @pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/docs", "/models", "/infrintia/hosts", "/docs/link"])
    async def test_head_answers_as_get_would_without_the_body(self, post: Post, path: str) -> None:
        async with aiohttp.ClientSession(post.url) as session:
            async with session.head(path) as head:
                assert head.status == 200 and int(head.headers["content-length"]) > 0 and await head.read() == b""
            async with session.get(path) as again:
                assert again.status == 200

    async def test_a_path_nobody_serves_is_a_404_with_detail(self, post: Post) -> None:
        assert await get_json(post, "/nowhere") == (404, {"detail": "nothing is served at /nowhere"})


class TestLivePart:
    async def test_nothing_is_sent_that_the_page_has_already(self, post: Post) -> None:
        _, _, first = await get(post, "/ui/market")
        seen = re.search(r"\?seen=(\w+)", first)
        assert seen is not None

        assert (await get(post, f"/ui/market?seen={seen[1]}"))[0] == 204
        assert (await get(post, "/ui/market?seen=old"))[0] == 200

    async def test_style_and_scripts_are_kept_for_ever_under_their_hash(self, post: Post) -> None:
        _, _, text = await get(post, "/", accept="text/html")
        for path in set(re.findall(r"/ui/[\w.]+\.(?:css|js|svg)", text)):
            status, headers, _ = await get(post, path)
            assert status == 200 and "immutable" in headers["cache-control"]
            assert (await get(post, path, **{"if-none-match": headers["etag"]}))[0] == 304

    async def test_without_the_hash_there_is_nothing(self, post: Post) -> None:
        assert (await get(post, "/ui/page.css"))[0] == 404


class TestHealth:
    async def test_it_is_the_union_of_the_published_ones(self, post: Post) -> None:
        status, body = await get_json(post, "/health")

        assert status == 200 and body["status"] == "healthy"
        assert (body["active_hosts"], body["queued_jobs"]) == (0, 0)
        assert body["checks"]["database"]["healthy"] is True and body["timestamp"].endswith("Z")

    async def test_a_database_that_hangs_is_unhealthy_within_a_second(self, post: Post) -> None:
        let_go = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hang(_: Tx) -> None:
            asyncio.run_coroutine_threadsafe(let_go.wait(), loop).result(20)

        hanging = post.core.db.run(hang)
        async with at_once(ms=1000):
            status, body = await get_json(post, "/health")
        let_go.set()
        await hanging

        assert (status, body["status"]) == (503, "unhealthy")
        assert "no answer" in body["checks"]["database"]["error"]
        async with asyncio.timeout(10):
            while (await get_json(post, "/health"))[0] != 200:
                await asyncio.sleep(0.05)

    async def test_a_full_disk_is_unhealthy_until_it_takes_writes_again(
        self, post: Post, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reads and an empty transaction go on without a free byte; a job could not be bought."""
        assert (await get_json(post, "/health"))[0] == 200
        # A heartbeat within the same millisecond changes nothing, and SQLite writes nothing then.
        looked_ms = post.core.clock.now_ms()
        while post.core.clock.now_ms() <= looked_ms + 1:
            await asyncio.sleep(0)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        try:
            statuses = [await get_json(post, path) for path in ("/health", "/infrintia/health", "/infernet/health")]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [(status, body["status"]) for status, body in statuses] == [(503, "unhealthy")] * 3
        assert "disk" in statuses[0][1]["checks"]["database"]["error"]

        # Something small may fit in again at once; what was refused is not forgotten so soon.
        assert (await get_json(post, "/health"))[0] == 503
        monkeypatch.setattr("comptoir.dispatch.meters.REFUSED_S", 0.0)
        assert (await get_json(post, "/health"))[0] == 200

    async def test_a_duty_that_fails_is_said_everywhere_until_it_is_done(self, post: Post) -> None:
        post.core.state(Duties).failed(Duty.RECORD, "No space left on device")
        found = [await get_json(post, path) for path in ("/health", "/infrintia/health", "/infernet/health")]
        _, _, figures = await get(post, "/metrics", accept="text/plain")
        post.core.state(Duties).done(Duty.RECORD)

        assert [(status, body["status"]) for status, body in found] == [(503, "unhealthy")] * 3
        assert found[0][1]["checks"]["record"] == {
            "healthy": False, "response_time_ms": 0.0,
            "error": "the commit record is not kept (No space left on device)",
        }  # fmt: skip
        assert 'comptoir_duty_failing{duty="record"} 1.0' in figures
        assert 'comptoir_duty_failing{duty="sweep"} 0.0' in figures
        status, body = await get_json(post, "/health")
        assert status == 200 and list(body["checks"]) == ["database"]

    async def test_it_is_unhealthy_while_it_drains(self, post: Post) -> None:
        post.core.state(Shutdown).leaving = True
        status, body = await get_json(post, "/health")
        assert (status, body["status"], body["checks"]["database"]["healthy"]) == (503, "unhealthy", True)


class TestMetrics:
    @pytest.mark.parametrize("accept", ["", "*/*", "application/json", "text/html,*/*"])
    async def test_json_is_what_programs_get(self, post: Post, accept: str) -> None:
        status, body = await get_json(post, "/metrics", **({"accept": accept} if accept else {}))
        assert status == 200
        assert body == {"total_jobs_completed": 0, "active_hosts": 0, "total_users": 2, "avg_job_latency_ms": 0}

    @pytest.mark.parametrize(
        ("path", "accept"),
        [("/metrics", "text/plain"), ("/metrics?format=prometheus", "*/*"), ("/metrics", "text/plain;version=0.0.4")],
    )
    async def test_prometheus_gets_text_that_it_can_read(self, post: Post, path: str, accept: str) -> None:
        await get(post, "/health")
        _, headers, text = await get(post, path, accept=accept)

        assert headers["content-type"].startswith("text/plain")
        found = {sample.name: sample for family in text_string_to_metric_families(text) for sample in family.samples}
        assert {"comptoir_jobs_waiting", "comptoir_db_commits_total", "comptoir_loop_lag_seconds"} <= set(found)
        assert {"process_cpu_seconds_total", "process_resident_memory_bytes"} <= set(found)
        requests = found["comptoir_http_requests_total"]
        assert requests.labels == {"dialect": "root", "method": "GET", "path": "/health", "status": "200"}

    async def test_openmetrics_ends_as_it_must(self, post: Post) -> None:
        _, headers, text = await get(post, "/metrics", accept="application/openmetrics-text; version=1.0.0")
        assert headers["content-type"].startswith("application/openmetrics-text") and text.endswith("# EOF\n")

    async def test_a_job_is_counted_with_its_tokens(self, post: Post) -> None:
        async with post.worker():
            body = b'{"model":"trivial","messages":[{"role":"user","content":"hi"}],"max_tokens":7}'
            reader = Reader(await submit(post.core, Order(post.buyer_id, "test", "chat", "trivial", body, 7, False)))
            while await reader.next() is not None:
                pass
            _, _, text = await get(post, "/metrics", accept="text/plain")
            _, numbers = await get_json(post, "/metrics")

        assert "comptoir_tokens_total 7.0" in text
        assert 'comptoir_units_total{unit="token_out"} 7.0' in text
        assert 'comptoir_jobs_ended_total{state="completed"} 1.0' in text
        assert 'comptoir_hosts{status="active"} 1.0' in text
        assert numbers["total_jobs_completed"] == 1

    async def test_what_was_before_the_start_counts_too(self, tmp_path: Path) -> None:
        async with open_post(tmp_path) as post, post.worker():
            body = b'{"model":"trivial","messages":[{"role":"user","content":"hi"}],"max_tokens":1}'
            reader = Reader(await submit(post.core, Order(post.buyer_id, "test", "chat", "trivial", body, 1, False)))
            while await reader.next() is not None:
                pass
            settings = post.core.settings
        async with open_core(settings) as again:
            await again.background.drain_tasks()
            assert again.state(Meters).ended_before["completed"] == 1
            assert again.state(Meters).users == 2


class TestReferences:
    async def test_each_dialect_has_a_page_and_a_document(self, post: Post) -> None:
        _, _, index = await get(post, "/docs")
        for dialect in DIALECTS:
            assert f"/docs/{dialect.name}" in index
            status, headers, page = await get(post, f"/docs/{dialect.name}")
            assert status == 200 and "unsafe" not in headers["content-security-policy"]
            assert f'data-document="/openapi/{dialect.name}.json"' in page
            status, document = await get_json(post, f"/openapi/{dialect.name}.json")
            assert status == 200 and document["openapi"] == "3.1.0"

    async def test_a_page_has_nothing_inline_and_names_files_that_never_change(self, post: Post) -> None:
        for path in ("/docs", "/docs/native"):
            _, _, page = await get(post, path)
            assert not re.search(r"<script(?![^>]*\ssrc=)|\sstyle=|<style|\son\w+=|javascript:", page)
            for name in re.findall(r'(?:src|href)="(/ui/[^"]*)"', page):
                status, headers, _ = await get(post, name)
                assert status == 200 and "immutable" in headers["cache-control"]

    @pytest.mark.parametrize(
        ("former", "now"), [("/docs/house", "/docs/native"), ("/openapi/house.json", "/openapi/native.json")]
    )
    async def test_a_dialects_former_name_leads_to_its_new_one(self, post: Post, former: str, now: str) -> None:
        async with aiohttp.ClientSession(post.url) as session, session.get(former, allow_redirects=False) as answer:
            assert answer.status == 308 and answer.headers["location"] == now

    @pytest.mark.parametrize("path", ["/docs/nothing", "/openapi/nothing.json", "/openapi/link", "/docs/<script>"])
    async def test_what_is_no_dialect_is_a_404(self, post: Post, path: str) -> None:
        status, body = await get_json(post, path)
        assert status == 404 and set(body) == {"detail"}
