"""Behind the real nginx with deploy/nginx.conf: streams, links, large bodies, and whose address counts."""

import asyncio
import contextlib
import io
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.house.tree import ROOT
from tests.post import Post, free_port, open_post
from tests.programs import running

NAME = "post.example.org"

CLIENT = "127.0.7.7"
"""Whom nginx sees: an address of loopback that is not the coordinator's neighbour's."""


def configuration(port: int, coordinator: int, folder: Path) -> str:
    """Return a whole configuration around deploy/nginx.conf, with the addresses of here and without TLS."""
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    text = re.sub(r"^ *ssl_.*\n", "", text, flags=re.MULTILINE)
    for old, new in (("listen 443 ssl;", f"listen 127.0.0.1:{port};"), ("127.0.0.1:8080", f"127.0.0.1:{coordinator}")):
        assert old in text
        text = text.replace(old, new, 1)
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\n    access_log off;\n{temporary}{text}}}\n"
    )


@contextlib.asynccontextmanager
async def nginx(folder: Path, coordinator: int) -> AsyncIterator[str]:
    """Run nginx before the coordinator on a port; gives its address."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        pytest.skip("NGINX IS NOT INSTALLED: nothing was tried behind deploy/nginx.conf (tools/proxies.sh)")
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(configuration(port, coordinator, folder))

    async def ready() -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        return False

    async with running(program, "-c", file, "-p", folder, "-e", folder / "error.log", ready=ready):
        yield f"http://127.0.0.1:{port}"


@pytest_asyncio.fixture
async def behind(tmp_path: Path) -> AsyncIterator[tuple[Post, str]]:
    settings = {"public_url": f"https://{NAME}", "trusted_proxies": ("127.0.0.1",), "requests_per_minute_per_ip": 9}
    async with open_post(tmp_path, **settings) as post, nginx(tmp_path, int(post.url.rpartition(":")[2])) as url:
        yield post, url


class TestNginx:
    async def test_all_that_a_post_does_works_behind_it(self, behind: tuple[Post, str], tmp_path: Path) -> None:
        post, url = behind
        connector = aiohttp.TCPConnector(local_addr=(CLIENT, 0))
        named = {"host": NAME, "authorization": f"Bearer {post.buyer_key}"}
        body = {"model": "trivial", "stream": True, "max_tokens": 40, "messages": [{"role": "user", "content": "hi"}]}
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            post.worker(urls=[url], options={"per_s": 200.0}),
        ):
            # The link is a WebSocket through nginx.
            await post.until_linked()

            # The first token comes before the answer is over.
            async with session.post(f"{url}/v1/chat/completions", json=body, headers=named) as answer:
                assert answer.status == 200
                while b'"content":" tok"' not in await answer.content.readline():
                    pass
                assert post.core.jobs.live.open_answers
                assert (await answer.read()).endswith(b"data: [DONE]\n\n")

            # A body of many megabytes arrives; what is too large the coordinator refuses, and beyond that nginx.
            for size, wanted, by in ((10 << 20, 400, "ours"), (36 << 20, 413, "ours"), (41 << 20, 413, "nginx's")):
                large = {**body, "stream": False, "messages": [{"role": "user", "content": "x" * size}]}
                sent = io.BytesIO(json.dumps(large).encode())
                headers = {**named, "content-type": "application/json"}
                async with session.post(f"{url}/v1/chat/completions", data=sent, headers=headers) as answer:
                    assert (answer.status, "json" in answer.headers["content-type"]) == (wanted, by == "ours")

            # The page is at home under the public name, and a name that is none of ours is refused.
            async with session.get(url, headers={"host": NAME, "accept": "text/html"}) as answer:
                assert answer.status == 200 and "text/html" in answer.headers["content-type"]
            async with session.get(f"{url}/health", headers={"host": "evil.example"}) as answer:
                assert answer.status == 421

            # Who has no key is limited by his own address, not by nginx's.
            statuses = []
            for _ in range(12):
                async with session.get(f"{url}/health", headers={"host": NAME}) as answer:
                    statuses.append(answer.status)
            assert statuses[-1] == 429
            async with aiohttp.request("GET", f"{url}/health", headers={"host": NAME}) as answer:
                assert answer.status == 200
