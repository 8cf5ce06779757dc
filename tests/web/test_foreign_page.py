"""A hostile page in a real browser on the owner's machine: it can neither do nor learn anything; a link to us still
opens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser

from comptoir.dispatch.onboard import add_host
from comptoir.hosts import NewHost
from comptoir.link import ModelOffer
from tests.post import Post, open_post
from tests.tcp import serving
from tests.web.conftest import REBOUND

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

ATTACKS = """async ([base, ws]) => {
  const host = JSON.stringify({gpu: "x", models: ["m"], price_per_token: 0, endpoint_url: "https://evil.example/infer"});
  const user = JSON.stringify({username: "mallory", email: "m@evil.example", password: "correct-horse"});
  const job = JSON.stringify({containers: ["a"], data: {}});
  const bodies = [["/hosts/register", host], ["/users", user], ["/api/jobs", job], ["/house/hosts/register", host]];
  const read = [];
  const tried = async (path, init) => {
    try { const answer = await fetch(base + path, init); if (answer.ok) read.push(path + " " + await answer.text()); } catch {}
  };
  for (const [path, body] of bodies) {
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/json", ""]) {
      const headers = type ? {"content-type": type} : {};
      await tried(path, {method: "POST", mode: "no-cors", body: type ? body : new Blob([body]), headers});
      await tried(path, {method: "POST", body: type ? body : new Blob([body]), headers});
    }
    navigator.sendBeacon(base + path, body);
    const form = document.createElement("form");
    Object.assign(form, {method: "POST", enctype: "text/plain", action: base + path, target: "sink"});
    const field = document.createElement("input");
    // As text/plain a form makes NAME=VALUE of it: the whole is JSON.
    Object.assign(field, {name: body.slice(0, -1) + ',"z":"', value: '"}'});
    form.append(field);
    document.body.append(form);
    form.submit();
  }
  for (const path of ["/api/jobs", "/house/hosts", "/hosts", "/house/status", "/metrics", "/health", "/v1/models", "/"]) {
    await tried(path, {});
  }
  const loads = async (tag, path) => new Promise((done) => {
    const one = document.createElement(tag);
    one.onload = () => done(tag + " " + path);
    one.onerror = () => done("");
    one.src = base + path;
    document.body.append(one);
  });
  for (const loaded of [await loads("script", "/house/status"), await loads("script", "/house/keys")]) {
    if (loaded) read.push(loaded);
  }
  const socket = await new Promise((done) => {
    const one = new WebSocket(ws);
    one.onopen = () => done("open");
    one.onerror = () => done("");
  });
  return [...read, ...(socket ? ["socket"] : [])];
}"""
"""All that a page can do at *base*; gives what it could read."""

PAGE = b"<!doctype html><title>evil</title><iframe name=sink></iframe><a id=link href='%s/'>a link</a>"


@asynccontextmanager
async def hostile_server(address: str, target: str) -> AsyncIterator[str]:
    """Serve the hostile page at *address*, any port; gives its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = PAGE % target.encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        await writer.drain()
        writer.close()

    async with serving(answer, address=address) as port:
        yield f"http://{address}:{port}"


async def untouched(post: Post) -> bool:
    """Tell whether nobody registered and nothing was bought."""
    hosts, users = len(post.core.fleet), await post.core.identity.list_users(limit=10)
    return (hosts, users[1], await post.core.db.fetch("SELECT count(*) FROM jobs")) == (1, 2, [(0,)])


async def test_a_hostile_page_does_nothing_and_learns_nothing(tmp_path: Path, browser: Browser) -> None:
    async with (
        open_post(tmp_path, infernet_anonymous="loopback") as post,
        await browser.new_context() as context,
        await context.new_page() as page,
    ):
        await add_host(post.core, NewHost(gpu="A100", models=(ModelOffer("m", ["chat"]),)))
        socket = f"ws://{urlsplit(post.url).netloc}/link"

        # From another port, and from another address, of this machine: the browser calls the first one of the same
        # site.
        for address in ("127.0.0.1", "127.0.0.2"):
            async with hostile_server(address, post.url) as evil:
                await page.goto(evil)
                assert await page.evaluate(ATTACKS, [post.url, socket]) == []
                assert await untouched(post)

                # A link is followed, to a page that works.
                await page.goto(evil)
                await page.click("#link")
                await page.wait_for_selector("#status")
                assert page.url == post.url + "/"

        # From its own name, once that means this machine: for the browser it is all one origin.
        rebound = f"http://{REBOUND}:{urlsplit(post.url).port}"
        await page.route(
            f"{rebound}/evil", lambda route: route.fulfill(body=(PAGE % b"").decode(), content_type="text/html")
        )
        await page.goto(f"{rebound}/evil")
        assert await page.evaluate(ATTACKS, [rebound, socket.replace("127.0.0.1", REBOUND)]) == []
        assert await untouched(post)
        answer = await page.goto(rebound)
        assert answer is not None and answer.status == 421
