"""What docs/configuration.md promises of settings that no other test holds; docs/security.md lists which test holds
which."""

import ast
import asyncio
from pathlib import Path

import aiohttp
import pytest

import comptoir
from comptoir.dispatch.onboard import add_host, add_user
from comptoir.hosts import POLL, NewHost
from comptoir.link import ModelOffer
from tests.post import Post, open_post

OFFER = ModelOffer("m", ["chat", "completion"])


async def said(
    post: Post, method: str, path: str, *, key: str = "", body: object = None
) -> tuple[int, dict[str, object]]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with (
        aiohttp.ClientSession(post.url) as session,
        session.request(method, path, json=body, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


async def run(post: Post, **fields: object) -> tuple[int, dict[str, object]]:
    return await said(post, "POST", "/run/model", key=post.buyer_key, body={"model": "m", "input_text": "hi", **fields})


class TestTokens:
    async def test_an_answer_without_a_bound_has_the_default_one(self, tmp_path: Path) -> None:
        async with open_post(tmp_path, max_tokens_default=7) as post:
            await add_host(post.core, NewHost(gpu="A100", models=(OFFER,), transport=POLL))
            status, answer = await run(post)

            assert status == 202
            job = post.core.jobs.live.get(bytes.fromhex(str(answer["job_id"])[4:]))
            assert job is not None and job.terms.output_max == 7

    async def test_a_bound_beyond_the_most_is_refused(self, tmp_path: Path) -> None:
        async with open_post(tmp_path, max_tokens_max=500, max_tokens_default=500, chat_max_tokens_default=500) as post:
            await add_host(post.core, NewHost(gpu="A100", models=(OFFER,), transport=POLL))

            assert (await run(post, max_tokens=501))[0] == 422
            assert (await run(post, max_tokens=500))[0] == 202
            body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 501}
            assert (await said(post, "POST", "/v1/chat/completions", key=post.buyer_key, body=body))[0] == 400


async def test_only_so_many_jobs_wait(tmp_path: Path) -> None:
    async with open_post(tmp_path, queue_jobs_max=2) as post:
        await add_host(post.core, NewHost(gpu="A100", models=(OFFER,), transport=POLL))
        assert [(await run(post))[0] for _ in range(3)] == [202, 202, 503]
        assert len(post.core.jobs.queue) == 2


async def test_a_message_on_the_link_beyond_its_size_ends_the_link(tmp_path: Path) -> None:
    async with open_post(tmp_path, link_message_bytes_max=65_536) as post, aiohttp.ClientSession(post.url) as session:
        made = await add_host(post.core, NewHost(gpu="A100", models=(OFFER,)))
        async with session.ws_connect("/link", headers={"authorization": f"Bearer {made.key}"}) as link:
            await link.send_bytes(bytes(65_537))
            assert (await link.receive(timeout=10)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
            assert link.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


@pytest.mark.parametrize(("allowed", "status"), [(True, 200), (False, 401)])
async def test_a_key_in_an_address_counts_only_where_it_is_allowed(tmp_path: Path, allowed: bool, status: int) -> None:
    async with open_post(tmp_path, allow_query_keys=allowed) as post:
        assert (await said(post, "GET", f"/users/me?api_key={post.buyer_key}"))[0] == status


@pytest.mark.parametrize(("allowed", "status"), [(False, 422), (True, 201)])
async def test_an_address_inside_is_taken_only_where_it_is_allowed(tmp_path: Path, allowed: bool, status: int) -> None:
    async with open_post(tmp_path, allow_private_endpoint_urls=allowed) as post:
        body = {"gpu": "A100", "models": ["m"], "price_per_token": 0, "endpoint_url": "http://127.0.0.1:9000/infer"}
        assert (await said(post, "POST", "/hosts/register", body=body))[0] == status


async def test_a_password_is_hashed_as_configured(tmp_path: Path) -> None:
    async with open_post(tmp_path, argon2_memory_kib=24, argon2_passes=3) as post:
        made = await add_user(post.core, username="eve", email="eve@example.org", password="correct-horse")
        ((stored,),) = await post.core.db.fetch("SELECT password_hash FROM users WHERE id = ?", [made.user.id])
        assert "$argon2id$" in str(stored) and "m=24,t=3," in str(stored)


@pytest.mark.parametrize("credit_uusd", [0, 123])
async def test_a_new_user_has_the_credit_of_the_setting(tmp_path: Path, credit_uusd: int) -> None:
    async with open_post(tmp_path, signup_credits_uusd=credit_uusd) as post:
        body = {"username": "eve", "email": "eve@example.org", "password": "correct-horse"}
        status, made = await said(post, "POST", "/users", body=body)
        assert status == 201
        assert (await said(post, "GET", "/house/me", key=str(made["api_key"])))[1]["account"][
            "free_uusd"
        ] == credit_uusd  # type: ignore[index]


async def test_wrong_keys_count_against_the_address(tmp_path: Path) -> None:
    async with open_post(tmp_path, requests_per_minute_per_ip=3) as post:
        wrong = "ck_" + "A" * 43
        assert [(await said(post, "GET", "/users/me", key=wrong))[0] for _ in range(4)] == [401, 401, 401, 429]
        assert (await said(post, "GET", "/users/me", key=post.buyer_key))[0] == 200


async def test_an_unknown_username_costs_a_hash_as_a_wrong_password_does(tmp_path: Path) -> None:
    async with open_post(tmp_path) as post, aiohttp.ClientSession(post.url) as session:
        checked: list[bool] = []
        passwords = post.core.identity._passwords
        verify = passwords._verify

        def counted(stored: str, password: str) -> bool:
            checked.append(stored.startswith("$argon2id$"))
            return verify(stored, password)

        passwords._verify = counted  # type: ignore[method-assign]
        for name in ("ada", "nobody-here"):
            headers = {"authorization": aiohttp.encode_basic_auth(name, "wrong-password")}
            async with session.get("/users/me", headers=headers) as answer:
                assert answer.status == 401
        assert checked == [True, True]


async def test_a_link_that_says_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comptoir.transports.link.session.HELLO_WITHIN_S", 0.05)
    async with open_post(tmp_path) as post, aiohttp.ClientSession(post.url) as session:
        made = await add_host(post.core, NewHost(gpu="A100", models=(OFFER,)))
        async with session.ws_connect("/link", headers={"authorization": f"Bearer {made.key}"}) as link:
            async with asyncio.timeout(10):
                while not link.closed:
                    await link.receive()


async def test_only_so_many_commands_wait_for_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_post(tmp_path) as post:
        with monkeypatch.context() as patch:
            patch.setattr("comptoir.kit.db.engine.COMMANDS_WAITING_MAX", 0)
            body = {"username": "eve", "email": "eve@example.org", "password": "correct-horse"}
            assert (await said(post, "POST", "/users", body=body))[0] == 503


def test_nothing_that_is_sent_is_unpickled_or_executed() -> None:
    """But for `inside`, which only the program of a sandbox imports: it runs what a buyer sent, behind the walls."""
    source, inside = Path(comptoir.__file__).parent, "comptoir.worker.engines.python.inside"
    forbidden = {"eval", "exec", "compile", "pickle", "marshal", "shelve", "dill", "cloudpickle"}
    found = set()
    for file in source.rglob("*.py"):
        if file.parent == source.joinpath(*inside.split(".")[1:]):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                found |= {(file.name, name) for name in names if name.partition(".")[0] in forbidden}
                found |= {(file.name, name) for name in names if name.startswith(inside)}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in forbidden:
                found.add((file.name, node.func.id))
    assert found == set()
