"""Programs as people use them, against the hostile engine: coding agents, a page for chats, a proxy."""

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.clients.driven import CLIENTS, MASTER_KEY, START_S, paths_of
from tests.clients.hostile import COST_UUSD, installed, question
from tests.clients.test_libraries import OFTEN, fits, paid
from tests.clients.test_page import run, sections
from tests.dialects.openai.shop import Shop
from tests.post import free_port
from tests.worker.odd_engine import MANNERS

pytestmark = [pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

ENVIRONMENTS = {client.name: client.environment for client in CLIENTS}

LOOK_S = 0.2
"""Between two looks whether a server answers: they take 10 s to start."""

TEXTS = tuple(name for name in OFTEN if fits(MANNERS[name], "text") and not MANNERS[name].outcome.error)


def at(name: str, variables: dict[str, str]) -> dict[str, str]:
    """Return *variables* with the programs of a client on the path."""
    return variables | {"PATH": ":".join([*map(str, paths_of(ENVIRONMENTS[name])), variables["PATH"]])}


async def told(name: str, prompt: str, variables: dict[str, str], folder: Path) -> str:
    """Run the lines of a client with another question, and return what they print."""
    lines = sections()[name][1].replace("What is Comptoir?", prompt)
    assert prompt in lines
    return await run("bash", "-euo", "pipefail", "-c", lines, variables=at(name, variables), folder=folder)


class TestAider:
    async def test_it_prints_the_answer(self, shop: Shop, surroundings: dict[str, str], tmp_path: Path) -> None:
        engine, before = installed(shop), await paid(shop)

        said = await told("aider", question("a pair in two halves"), surroundings, tmp_path)

        assert "a😀b" in said
        assert engine.tries["a pair in two halves"] == 1 and await paid(shop) > before

    async def test_it_asks_again_and_pays_once(self, shop: Shop, surroundings: dict[str, str], tmp_path: Path) -> None:
        engine, before = installed(shop), await paid(shop)

        said = await told("aider", question("busy once"), surroundings, tmp_path)

        assert re.search(r"^ab\s*$", said, re.MULTILINE)
        assert (engine.tries["busy once"], await paid(shop) - before) == (2, COST_UUSD)


class TestOpencode:
    @pytest.mark.parametrize("name", ["a pair in two halves", "null beside each text", "refuses stream_options"])
    async def test_it_prints_the_answer(
        self, shop: Shop, surroundings: dict[str, str], tmp_path: Path, name: str
    ) -> None:
        installed(shop)

        said = await told("opencode", question(name), surroundings, tmp_path)

        assert ("a😀b" if "halves" in name else "ab") in said.splitlines()

    async def test_its_tools_run(self, shop: Shop, surroundings: dict[str, str], tmp_path: Path) -> None:
        """The engine calls its shell without index and type, and is told what that printed."""
        engine = installed(shop)

        said = await told("opencode", question("uses the shell"), surroundings, tmp_path)

        assert "told: from the shell" in said
        assert engine.tries["uses the shell"] > 1

    async def test_a_broken_stream_is_asked_for_again(
        self, shop: Shop, surroundings: dict[str, str], tmp_path: Path
    ) -> None:
        """Unlike libraries, which raise; what came before is paid too."""
        engine, before = installed(shop), await paid(shop)

        said = await told("opencode", question("breaks an agent once"), surroundings, tmp_path)

        titles = engine.tries["breaks an agent once"] - engine.tries["with tools"]
        assert "ab" in said.splitlines() and engine.tries["with tools"] == 2
        assert await paid(shop) - before == 3 * 100 + (1 + titles) * COST_UUSD


class TestLlm:
    async def test_it_streams_the_answer(self, shop: Shop, surroundings: dict[str, str], tmp_path: Path) -> None:
        installed(shop)

        said = await told("llm", question("slow first token"), surroundings, tmp_path)

        assert said == "ab\n"


@contextlib.asynccontextmanager
async def serving(
    name: str, variables: dict[str, str], folder: Path, ready: Callable[[str], Awaitable[bool]]
) -> AsyncIterator[str]:
    """Run the lines of a client that serves; gives its address once it is *ready*."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-euo",
            "pipefail",
            "-c",
            sections()[name][1].replace(f"\n{name.split()[0].lower()}", "\nexec " + name.split()[0].lower()),
            cwd=folder,
            env=at(name, variables) | {"PORT": str(port)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(START_S):
            while not await ready(url):
                assert process.returncode is None, (folder / "log").read_text()[-2000:]
                await asyncio.sleep(LOOK_S)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    """Say whether *url* answers."""
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def ask(session: aiohttp.ClientSession, url: str, key: str, **fields: Any) -> tuple[int, str, str]:
    """Ask a server that speaks OpenAI's chat; return its status, the text, and the whole of what it sent."""
    body = {"model": "comptoir-demo", "messages": [{"role": "user", "content": fields.pop("prompt")}], **fields}
    async with session.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as response:
        sent = (await response.read()).decode()
    if "stream" not in fields or response.status != 200:
        found = msgspec.json.decode(sent).get("choices")
        return response.status, found[0]["message"]["content"] if found else "", sent
    chunks = [msgspec.json.decode(line[6:]) for line in sent.splitlines() if line.startswith("data: {")]
    said = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ())]
    return response.status, "".join(said), sent


async def wrong_texts(shop: Shop, asking: Callable[..., Awaitable[tuple[int, str, str]]]) -> dict[str, str]:
    """Return what came of each manner, asked whole and streamed, where it is not what the engine said."""
    wrong = {}
    for name in (*TEXTS, "slow first token"):
        for more in ({}, {"stream": True}):
            engine = installed(shop)
            status, text, sent = await asking(prompt=question(name), **more)
            outcome = MANNERS[name].outcome.texts[0] if name in MANNERS else "ab"
            if (status, text, engine.tries[name]) != (200, outcome, 1):
                wrong[f"{name}, {more}"] = f"{engine.tries} {sent[:500]}"
    return wrong


class TestLiteLlmProxy:
    async def test_what_engines_send_goes_through(
        self, shop: Shop, surroundings: dict[str, str], tmp_path: Path
    ) -> None:
        async with contextlib.AsyncExitStack() as stack:
            session = shop.session
            live = lambda url: answers(session, url + "/health/liveliness")  # noqa: E731
            url = await stack.enter_async_context(serving("LiteLLM proxy", surroundings, tmp_path, live))
            asking = lambda **fields: ask(session, url + "/v1/chat/completions", MASTER_KEY, **fields)  # noqa: E731

            assert await wrong_texts(shop, asking) == {}

            engine, before = installed(shop), await paid(shop)
            status, text, _ = await asking(prompt=question("busy once"))
            assert (status, text, engine.tries["busy once"]) == (200, "ab", 2)
            assert await paid(shop) - before == COST_UUSD

            before = await paid(shop)
            status, _, sent = await asking(prompt=question("an error as an event"))
            assert status >= 500 and "out of memory" in sent and await paid(shop) == before


class TestOpenWebUi:
    async def token(self, session: aiohttp.ClientSession, url: str) -> str:
        """Sign in as whoever comes first (WEBUI_AUTH=false)."""
        async with session.post(url + "/api/v1/auths/signin", json={"email": "", "password": ""}) as response:
            assert response.status == 200, await response.text()
            return str((await response.json())["token"])

    async def test_what_engines_send_goes_through(
        self, shop: Shop, surroundings: dict[str, str], tmp_path: Path
    ) -> None:
        async with contextlib.AsyncExitStack() as stack:
            session = shop.session
            healthy = lambda url: answers(session, url + "/health")  # noqa: E731
            url = await stack.enter_async_context(serving("Open WebUI", surroundings, tmp_path, healthy))
            key = await self.token(session, url)
            async with session.get(url + "/api/models", headers={"Authorization": f"Bearer {key}"}) as response:
                assert "comptoir-demo" in [model["id"] for model in (await response.json())["data"]]
            asking = lambda **fields: ask(session, url + "/api/chat/completions", key, **fields)  # noqa: E731

            assert await wrong_texts(shop, asking) == {}

            before = await paid(shop)
            status, _, sent = await asking(prompt=question("an error as an event"))
            assert status >= 400 and "out of memory" in sent and await paid(shop) == before
