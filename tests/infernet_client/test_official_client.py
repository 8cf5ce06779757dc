"""Infernet's official client sees what a node says: every method, its errors, and streams whose first read is the
id."""

import re
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from eth_account import Account

from comptoir.chain import Domain, containers_id, recover
from tests.infernet_client.client import ClientError, OfficialClient
from tests.infernet_client.stand_in import CHAIN_ID, PIECES, RESOURCES, StandIn, open_stand_in
from tests.rooms.chain.test_eip712 import DEV_WORDS, GOLDEN, GOLDEN_DOMAIN, GOLDEN_SIGNATURE

LOCK = Path(__file__).parents[2] / "requirements" / "infernet-client.txt"

pytestmark = pytest.mark.infernet


@pytest.fixture
async def node() -> AsyncIterator[StandIn]:
    """Give a node with the containers echo, reverse, inner (private) and broken."""
    async with open_stand_in() as node:
        yield node


def job(*containers: str, **data: object) -> dict[str, object]:
    """Return a job request."""
    return {"containers": list(containers), "data": data}


class TestInstall:
    def test_the_locked_client_is_the_one_installed(self, infernet_python: str) -> None:
        locked = re.search(r"^infernet-client==(\S+)", LOCK.read_text(), re.MULTILINE)
        program = "from importlib.metadata import version; print(version('infernet-client'))"

        done = subprocess.run([infernet_python, "-c", program], capture_output=True, text=True, check=True)

        assert locked is not None and done.stdout.strip() == locked[1]


class TestAbout:
    async def test_health(self, official_client: OfficialClient, node: StandIn) -> None:
        assert await official_client(node.url, "health") is True

    async def test_info(self, official_client: OfficialClient, node: StandIn) -> None:
        info = await official_client(node.url, "get_info")

        assert set(info) == {"version", "containers", "pending", "chain"}
        assert {one["id"]: one["external"] for one in info["containers"]}["inner"] is False

    async def test_resources(self, official_client: OfficialClient, node: StandIn) -> None:
        assert await official_client(node.url, "get_resources") == RESOURCES

    async def test_model_support(self, official_client: OfficialClient, node: StandIn) -> None:
        found = await official_client(node.url, "check_model_support", model_id="hf/a/b")

        assert found == {"echo": {"supported": True}}


class TestJobs:
    async def test_a_job_and_its_result(self, official_client: OfficialClient, node: StandIn) -> None:
        made = await official_client(node.url, "request_job", job=job("echo", text="hi"))

        assert str(uuid.UUID(made)) == made
        assert await official_client(node.url, "get_job_results", job_ids=[made]) == [
            {"id": made, "status": "success", "result": {"container": "echo", "output": {"echo": {"text": "hi"}}}}
        ]

    async def test_results_between(self, official_client: OfficialClient, node: StandIn) -> None:
        made = await official_client(node.url, "request_job", job=job("echo", "reverse"))

        (found,) = await official_client(node.url, "get_job_results", job_ids=[made], intermediate=True)

        assert [one["container"] for one in found["intermediate_results"]] == ["echo"]
        assert found["result"]["container"] == "reverse"

    async def test_waiting_for_a_result(self, official_client: OfficialClient, node: StandIn) -> None:
        """The client sleeps a second between two looks; nothing else here waits on real time."""
        made = await official_client(node.url, "request_job", job=job("echo", slow=True))

        found = await official_client(node.url, "get_job_result_sync", job_id=made)

        assert found["status"] == "success" and node.looked[made] == 2

    async def test_nobody_s_job_is_none(self, official_client: OfficialClient, node: StandIn) -> None:
        assert await official_client(node.url, "get_job_result_sync", job_id=str(uuid.uuid4())) is None

    async def test_a_failed_job_says_why(self, official_client: OfficialClient, node: StandIn) -> None:
        made = await official_client(node.url, "request_job", job=job("broken"))

        found = await official_client(node.url, "get_job_result_sync", job_id=made)

        assert (found["status"], found["result"]) == ("failed", {"container": "broken", "error": "boom"})

    async def test_a_batch_keeps_its_order(self, official_client: OfficialClient, node: StandIn) -> None:
        first, second, third = await official_client(
            node.url, "request_jobs", jobs=[job("echo"), job("nothing"), job("reverse")]
        )

        assert second == {"error": "Container not supported", "params": {"container": "nothing"}}
        found = await official_client(node.url, "get_job_results", job_ids=[first["id"], third["id"]])
        assert [one["result"]["container"] for one in found] == ["echo", "reverse"]

    async def test_listing(self, official_client: OfficialClient, node: StandIn) -> None:
        made = await official_client(node.url, "request_job", job=job("echo"))

        assert await official_client(node.url, "get_jobs") == [made]
        assert await official_client(node.url, "get_jobs", pending=True) == []
        assert await official_client(node.url, "get_jobs", pending=False) == [made]

    @pytest.mark.parametrize(
        ("containers", "message", "params"),
        [
            ((), "No containers specified", {}),
            (("nothing",), "Container not supported", {"container": "nothing"}),
            (("inner",), "First container must be external", {"first_container": "inner"}),
        ],
    )
    @pytest.mark.parametrize("call", ["request_job", "request_stream"])
    async def test_a_refusal_is_an_api_error(
        self,
        official_client: OfficialClient,
        node: StandIn,
        call: str,
        containers: tuple[str, ...],
        message: str,
        params: dict[str, str],
    ) -> None:
        refused = await official_client(node.url, call, job=job(*containers))

        assert refused == ClientError("APIError", 405, message, params)


class TestStatus:
    async def test_it_is_recorded(self, official_client: OfficialClient, node: StandIn) -> None:
        made = str(uuid.uuid4())

        assert await official_client(node.url, "record_status", id=made, status="running", job=job("echo")) is None
        assert node.recorded == [{"id": made, "status": "running", **job("echo")}]

    async def test_a_bad_one_is_an_api_error(self, official_client: OfficialClient, node: StandIn) -> None:
        refused = await official_client(node.url, "record_status", id="1", status="maybe", job=job("echo"))

        assert refused == ClientError("APIError", 400, "Status is invalid", {})


class TestStreams:
    async def test_the_id_comes_first_and_alone(self, official_client: OfficialClient, node: StandIn) -> None:
        streams = await official_client.repeat(node.url, "request_stream", job=job("echo"), times=20, at_once=10)

        assert [ids for ids, *_ in streams] == [str(uuid.UUID(ids)) for ids, *_ in streams]
        assert ["".join(pieces) for _, *pieces in streams] == 20 * [b"".join(PIECES).decode()]

    async def test_an_id_that_data_sticks_to_is_seen(self, official_client: OfficialClient, node: StandIn) -> None:
        """Else the test above could not fail."""
        node.glued = True

        first, *_ = await official_client(node.url, "request_stream", job=job("echo"))

        assert first.endswith("\none") and len(first) == 40

    async def test_a_cut_is_an_error_after_what_came(self, official_client: OfficialClient, node: StandIn) -> None:
        broken = await official_client(node.url, "request_stream", job=job("broken"))

        assert isinstance(broken, ClientError)
        assert broken.type == "ClientPayloadError" and len(broken.yielded) == 1


class TestDelegated:
    async def test_what_the_client_signs_is_read_exactly_and_its_signer_found(
        self, official_client: OfficialClient, node: StandIn
    ) -> None:
        """The golden vector, through the official client's own typed data, JSON and signing."""
        Account.enable_unaudited_hdwallet_features()
        account = Account.from_mnemonic(DEV_WORDS, account_path="m/44'/60'/0'/0/2")
        fields = {name: getattr(GOLDEN, name) for name in type(GOLDEN).__slots__} | {"containers": ["echo"]}

        done = await official_client(
            node.url,
            "request_delegated_subscription",
            subscription=fields,
            rpc_url=f"{node.url}/rpc",
            coordinator_address="0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512",
            nonce=1,
            expiry=1_800_000_000,
            private_key=account.key.hex(),
            data={"text": "hi"},
        )

        assert done is None
        (found,) = node.delegated
        assert (found.subscription, found.signature) == (GOLDEN, GOLDEN_SIGNATURE)
        assert bytes(found.data) == b'{"text": "hi"}' and not found.requires_proof
        assert found.subscription.containers == containers_id(["echo"])
        assert recover(GOLDEN_DOMAIN, found.subscription, found.signature, now_s=0) == account.address

    async def test_the_chain_is_the_one_that_its_node_names(self) -> None:
        assert Domain(chain_id=CHAIN_ID, verifying_contract=GOLDEN_DOMAIN.verifying_contract) == GOLDEN_DOMAIN
