"""Infernet's official client against our dialect: everything that it can do, as tests/infernet_client does with a
stand-in."""

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from eth_account import Account

from comptoir.chain.testing import make_item
from comptoir.dialects.infernet import stream
from tests.dialects.infernet.shop import Node, open_node
from tests.infernet_client.client import ClientError, OfficialClient
from tests.infernet_client.stand_in import CHAIN_ID
from tests.rooms.chain.test_eip712 import DEV_WORDS, GOLDEN, GOLDEN_SIGNATURE
from tests.worker.engines.container_stand_in import (
    RESOURCES,
    after,
    appends,
    echo,
    says,
    streams,
)

pytestmark = pytest.mark.infernet

PIECES = (b"one ", b"two ", b"three")
LARGE = 64 * (1024 * b"0123456789abcdef",)
"""A mebibyte, in pieces of 16 KiB."""

UUID_CHARS = 36

STREAMS = 40
STREAMS_AT_ONCE = 20

BETWEEN_S = 0.01
"""Between two looks of a test at what comes by itself."""


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """Give a node with a container for each way to be used."""
    answers = {"echo": echo, "second": appends("second"), "inner": echo, "far": echo, "pieces": streams(*PIECES)}
    cards: dict[str, dict[str, Any]] = {
        "echo": {"description": "Says it again."},
        "inner": {"external": False},
        "far": {"allowed_ips": ("10.0.0.0/8",)},
    }
    async with open_node(tmp_path, answers=answers, cards=cards) as node:
        yield node


def job(*containers: str, **data: object) -> dict[str, object]:
    """Return a job request."""
    return {"containers": list(containers), "data": data}


async def over(client: OfficialClient, node: Node, made: str) -> dict[str, Any]:
    """Return the result of a job once it is over, asked for with all between."""
    async with asyncio.timeout(20):
        while True:
            (found,) = await client(node.url, "get_job_results", job_ids=[made], intermediate=True)
            if found["status"] != "running":
                return found  # type: ignore[no-any-return]
            await asyncio.sleep(BETWEEN_S)


REFUSED: list[tuple[dict[str, object], str, dict[str, str]]] = [
    (job(), "No containers specified", {}),
    (job("nothing"), "Container not supported", {"container": "nothing"}),
    (job("echo", "nothing"), "Container not supported", {"container": "nothing"}),
    (job("inner"), "First container must be external", {"first_container": "inner"}),
    (job("echo") | {"requires_proof": True}, "Container does not generate proof", {"container": "echo"}),
    (job("far"), "Container not allowed for address", {"container": "far", "address": "127.0.0.1"}),
]


class TestAbout:
    async def test_health(self, official_client: OfficialClient, node: Node) -> None:
        assert await official_client(node.url, "health") is True

    async def test_info(self, official_client: OfficialClient, node: Node) -> None:
        info = await official_client(node.url, "get_info")

        containers = {one["id"]: one for one in info["containers"]}
        assert set(containers) == set(node.containers)
        assert containers["echo"] == {"id": "echo", "description": "Says it again.", "external": True, "image": ""}
        assert containers["inner"]["external"] is False
        assert info["pending"] == {"offchain": 0, "onchain": 0}
        assert info["chain"] == {"enabled": False, "address": ""}
        assert re.match(r"1\.4\.\d", info["version"])

    async def test_resources(self, official_client: OfficialClient, node: Node) -> None:
        async with asyncio.timeout(20):
            while len(found := await official_client(node.url, "get_resources")) < len(node.containers):
                await asyncio.sleep(BETWEEN_S)

        assert found == dict.fromkeys(node.containers, msgspec.json.decode(RESOURCES))

    @pytest.mark.parametrize(("model_id", "supported"), [("storage/owner/name:file", True), ("hf/a/b", False)])
    async def test_model_support(
        self, official_client: OfficialClient, node: Node, model_id: str, supported: bool
    ) -> None:
        """Who asks first may be told to ask again: the client waits a second, some containers do not answer in one."""
        async with asyncio.timeout(20):
            while True:
                found = await official_client(node.url, "check_model_support", model_id=model_id)
                if not any("error" in one for one in found.values()):
                    break
                await asyncio.sleep(BETWEEN_S)

        assert found == {name: {"supported": supported} for name in node.containers}


class TestJobs:
    async def test_a_job_and_its_result(self, official_client: OfficialClient, node: Node) -> None:
        made = await official_client(node.url, "request_job", job=job("echo", text="hi"))

        assert str(uuid.UUID(made)) == made
        await over(official_client, node, made)
        assert await official_client(node.url, "get_job_results", job_ids=[made]) == [
            {"id": made, "status": "success", "result": {"container": "echo", "output": {"text": "hi"}}}
        ]

    async def test_the_client_may_be_sent_below_the_prefix(
        self, official_client: OfficialClient, tmp_path: Path
    ) -> None:
        async with open_node(tmp_path, answers={"it": echo}, prefix="/infernet") as node:
            made = await official_client(node.url, "request_job", job=job("it"))

            assert (await over(official_client, node, made))["status"] == "success"

    async def test_results_between(self, official_client: OfficialClient, node: Node) -> None:
        made = await official_client(node.url, "request_job", job=job("echo", "second", "inner", said=["first"]))

        assert await over(official_client, node, made) == {
            "id": made,
            "status": "success",
            "result": {"container": "inner", "output": {"said": ["first", "second"]}},
            "intermediate_results": [
                {"container": "echo", "output": {"said": ["first"]}},
                {"container": "second", "output": {"said": ["first", "second"]}},
            ],
        }

    async def test_one_container_has_nothing_between(self, official_client: OfficialClient, node: Node) -> None:
        made = await official_client(node.url, "request_job", job=job("echo"))

        assert (await over(official_client, node, made))["intermediate_results"] == []

    async def test_waiting_for_a_result(self, official_client: OfficialClient, tmp_path: Path) -> None:
        """The client looks again after a second: once with our answer ``running``, once with the result."""
        release = asyncio.Event()
        async with open_node(tmp_path, answers={"it": after(release)}) as node:
            made = await official_client(node.url, "request_job", job=job("it", x=1))
            (running,) = await official_client(node.url, "get_job_results", job_ids=[made])
            pending = [await official_client(node.url, "get_jobs", pending=flag) for flag in (True, False, None)]
            release.set()
            found = await official_client(node.url, "get_job_result_sync", job_id=made)
            after_it = [await official_client(node.url, "get_jobs", pending=flag) for flag in (True, False, None)]

        assert running == {"id": made, "status": "running", "result": None}
        assert (found["status"], found["result"]) == ("success", {"container": "it", "output": {"x": 1}})
        assert (pending, after_it) == ([[made], [], [made]], [[], [made], [made]])

    async def test_an_unknown_job_is_none(self, official_client: OfficialClient, node: Node) -> None:
        assert await official_client(node.url, "get_job_result_sync", job_id=str(uuid.uuid4())) is None
        assert await official_client(node.url, "get_job_results", job_ids=["no-uuid", str(uuid.uuid4())]) == []

    async def test_a_failed_job_says_why_and_not_where(self, official_client: OfficialClient, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={"it": says(b'{"reason": "no mood"}', status=500)}) as node:
            made = await official_client(node.url, "request_job", job=job("it"))
            found = await over(official_client, node, made)
            inside = node.containers["it"].url.removeprefix("http://")

        assert found["status"] == "failed" and found["result"]["container"] == "it"
        assert "no mood" in found["result"]["error"] and inside not in found["result"]["error"]

    async def test_a_chain_that_breaks_keeps_what_came_before(
        self, official_client: OfficialClient, tmp_path: Path
    ) -> None:
        answers = {"first": appends("first"), "bad": says(b'"no"', status=500), "last": echo}
        async with open_node(tmp_path, answers=answers) as node:
            made = await official_client(node.url, "request_job", job=job("first", "bad", "last"))
            found = await over(official_client, node, made)
            reached = node.containers["last"].runs

        assert (found["status"], found["result"]["container"]) == ("failed", "bad")
        assert found["intermediate_results"] == [{"container": "first", "output": {"said": ["first"]}}]
        assert reached == []

    async def test_a_batch_keeps_its_order(self, official_client: OfficialClient, node: Node) -> None:
        items = [
            job("echo", n=0),
            job("nothing"),
            job("echo", n=2),
            job(),
            {"containers": 5, "data": {}},
            job("echo", n=5),
        ]

        answers = await official_client(node.url, "request_jobs", jobs=items)

        assert ["id" in one for one in answers] == [True, False, True, False, False, True]
        assert answers[1] == {"error": "Container not supported", "params": {"container": "nothing"}}
        assert answers[3]["error"] == "No containers specified"
        assert "containers" in answers[4]["error"]
        results = [await over(official_client, node, one["id"]) for one in answers if "id" in one]
        assert [one["result"]["output"] for one in results] == [{"n": 0}, {"n": 2}, {"n": 5}]

    async def test_results_come_in_the_order_they_were_asked_for(
        self, official_client: OfficialClient, node: Node
    ) -> None:
        answers = await official_client(node.url, "request_jobs", jobs=[job("echo", n=n) for n in range(20)])
        made = [one["id"] for one in answers][::-1]

        found = await official_client(node.url, "get_job_results", job_ids=made)

        assert [one["id"] for one in found] == made

    async def test_an_empty_batch_is_an_empty_list(self, official_client: OfficialClient, node: Node) -> None:
        assert await official_client(node.url, "request_jobs", jobs=[]) == []

    @pytest.mark.parametrize("call", ["request_job", "request_stream"])
    async def test_a_refusal_is_an_api_error(self, official_client: OfficialClient, node: Node, call: str) -> None:
        for asked, message, params in REFUSED:
            refused = await official_client(node.url, call, job=asked)

            assert refused == ClientError("APIError", 405, message, params)

    async def test_a_body_that_is_no_job_is_a_400(self, official_client: OfficialClient, node: Node) -> None:
        for asked in ({"data": {}}, {"containers": ["echo"]}, {"containers": "echo", "data": {}}, []):
            refused = await official_client(node.url, "request_job", job=asked)

            assert isinstance(refused, ClientError), asked
            assert (refused.type, refused.status) == ("APIError", 400), asked

    async def test_too_many_requests_are_an_api_error(self, official_client: OfficialClient, tmp_path: Path) -> None:
        """The original answers HTML, which its own client takes for a ContentTypeError."""
        async with open_node(tmp_path, answers={"it": echo}, infernet_requests_per_minute=2) as node:
            outcomes = await official_client.repeat(node.url, "request_job", job=job("it"), times=4, at_once=1)

        refused = [one for one in outcomes if isinstance(one, ClientError)]
        assert refused and {(one.type, one.status) for one in refused} == {("APIError", 429)}


class TestStatus:
    async def test_it_is_recorded_and_shown(self, official_client: OfficialClient, node: Node) -> None:
        made = str(uuid.uuid4())
        seen = []
        for status in ("running", "success"):
            assert await official_client(node.url, "record_status", id=made, status=status, job=job("echo")) is None
            seen += await official_client(node.url, "get_job_results", job_ids=[made])

        assert seen == [{"id": made, "status": status, "result": None} for status in ("running", "success")]
        assert await official_client(node.url, "get_jobs") == [made]

    async def test_a_bad_one_is_an_api_error(self, official_client: OfficialClient, node: Node) -> None:
        refused = await official_client(node.url, "record_status", id="1", status="maybe", job=job("echo"))

        assert isinstance(refused, ClientError)
        assert (refused.type, refused.status, refused.message) == ("APIError", 400, "Status is invalid")


def apart(streamed: list[str]) -> tuple[str, str]:
    """Return the id and the text of a stream. The client takes whatever it reads first for the id: on a busy machine,
    the first of the text with it."""
    whole = "".join(streamed)
    return whole[:UUID_CHARS], whole[UUID_CHARS:].removeprefix("\n")


class TestStreams:
    async def test_what_was_streamed_can_be_fetched(self, official_client: OfficialClient, node: Node) -> None:
        made, text = apart(await official_client(node.url, "request_stream", job=job("pieces")))

        assert text == "one two three"
        found = await over(official_client, node, made)
        assert (found["status"], found["result"]["output"]) == ("success", {"output": "one two three"})

    async def test_the_id_is_never_glued_to_data(
        self, official_client: OfficialClient, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A client that 20 streams and a busy machine keep from reading needs longer than one that runs has to have."""
        monkeypatch.setattr(stream, "ID_ALONE_S", 1.0)
        streamed = await official_client.repeat(
            node.url, "request_stream", job=job("pieces"), times=STREAMS, at_once=STREAMS_AT_ONCE
        )

        assert [one for one in streamed if isinstance(one, ClientError)] == []
        ids = [made for made, *_ in streamed]
        assert [made for made in ids if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made)] == []
        assert len(set(ids)) == STREAMS
        assert {"".join(pieces) for _, *pieces in streamed} == {"one two three"}

    async def test_of_a_chain_the_last_one_streams(self, official_client: OfficialClient, node: Node) -> None:
        made, text = apart(await official_client(node.url, "request_stream", job=job("echo", "pieces")))

        assert str(uuid.UUID(made)) == made and text == "one two three"

    async def test_nothing_is_a_stream_too(self, official_client: OfficialClient, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={"it": streams()}) as node:
            streamed = await official_client(node.url, "request_stream", job=job("it"))

        assert len(streamed) == 1 and str(uuid.UUID(streamed[0])) == streamed[0]

    async def test_a_large_one_comes_whole(self, official_client: OfficialClient, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={"it": streams(*LARGE)}) as node:
            _, text = apart(await official_client(node.url, "request_stream", job=job("it")))

        assert text == b"".join(LARGE).decode()

    async def test_one_that_breaks_is_an_error_and_failed(
        self, official_client: OfficialClient, tmp_path: Path
    ) -> None:
        """The original ends it well, so that half an answer passes for a whole one."""
        async with open_node(tmp_path, answers={"it": streams(b"half", cut=True)}) as node:
            broken = await official_client(node.url, "request_stream", job=job("it"))
            assert isinstance(broken, ClientError)
            found = await over(official_client, node, broken.yielded[0])

        assert broken.type == "ClientPayloadError"
        assert str(uuid.UUID(broken.yielded[0])) == broken.yielded[0]
        assert found["status"] == "failed" and found["result"]["container"] == "it"


@contextlib.asynccontextmanager
async def open_rpc() -> AsyncIterator[str]:
    """Run what the client needs of a chain's node; gives its address."""

    async def answer(request: web.Request) -> web.Response:
        asked = await request.json()
        assert asked["method"] == "eth_chainId", asked
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": hex(CHAIN_ID)})

    application = web.Application()
    application.router.add_post("/", answer)
    async with TestServer(application) as server:
        yield str(server.make_url(""))


DELEGATED = {name: getattr(GOLDEN, name) for name in type(GOLDEN).__slots__}
"""The arguments of the client's `Subscription`, the ids of its containers aside."""


class TestDelegated:
    async def test_it_is_refused_while_no_chain_is_enabled(self, official_client: OfficialClient, node: Node) -> None:
        Account.enable_unaudited_hdwallet_features()
        account = Account.from_mnemonic(DEV_WORDS, account_path="m/44'/60'/0'/0/2")

        async with open_rpc() as rpc_url:
            refused = await official_client(
                node.url,
                "request_delegated_subscription",
                subscription=DELEGATED | {"containers": ["echo"]},
                rpc_url=rpc_url,
                coordinator_address="0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512",
                nonce=1,
                expiry=1_800_000_000,
                private_key=account.key.hex(),
                data={"text": "hi"},
            )

        assert refused == ClientError("APIError", 405, "Chain not enabled", {})

    async def test_in_a_batch_it_is_refused_for_itself(self, official_client: OfficialClient, node: Node) -> None:
        delegated = msgspec.json.decode(make_item(GOLDEN, GOLDEN_SIGNATURE))

        first, second = await official_client(node.url, "request_jobs", jobs=[delegated, job("echo")])

        assert first == {"error": "Chain not enabled"} and "id" in second

    async def test_it_is_no_stream(self, official_client: OfficialClient, node: Node) -> None:
        delegated = msgspec.json.decode(make_item(GOLDEN, GOLDEN_SIGNATURE))

        refused = await official_client(node.url, "request_stream", job=delegated)

        assert refused == ClientError("APIError", 405, "Streaming only supported for OffchainJob requests.", {})
