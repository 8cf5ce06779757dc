"""Operators act over HTTP: who may, what everybody else is told in which shape, and what is on record."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from comptoir.dispatch.onboard import add_host, add_user
from comptoir.hosts import LINK, NewHost
from comptoir.identity import Role
from comptoir.kit.ids import public
from comptoir.link import ModelOffer
from tests.dialects.native.conftest import Caller
from tests.post import open_post

WHY = "it lies about its model"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def post(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Caller]:
    """One trading post for all of them; each takes users, hosts and names of its own."""
    async with (
        open_post(tmp_path_factory.mktemp("acts"), infernet_anonymous="any") as opened,
        aiohttp.ClientSession() as session,
    ):
        caller = Caller(opened, session)
        caller.stranger = await add_user(opened.core, username="eve", email=None, password=None)
        yield caller


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def act(post: Caller, path: str, *, key: str | None = "admin", **fields: Any) -> tuple[int, Any]:
    """Have an operator act."""
    headers = {"idempotency-key": fields.pop("once")} if "once" in fields else None
    return await post.call("POST", path, key=key, body={"reason": WHY, **fields}, headers=headers)


async def asked(post: Caller, method: str, path: str, *, key: str, body: Any = None) -> tuple[int, str]:
    """Ask for any path, of any dialect; return the status and the body's text."""
    data = msgspec.json.encode(body if body is not None else {}) if method == "POST" else None
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    async with post._session.request(method, post.post.url + path, data=data, headers=headers) as answer:
        return answer.status, await answer.text()


CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

OF_USERS = [
    ("GET", "/v1/models", None, '"type":"permission_error"'),
    ("POST", "/v1/chat/completions", CHAT, '"type":"permission_error"'),
    ("GET", "/users/me", None, '{"detail":"this account is suspended'),
    ("GET", "/house/me", None, '"code":"UserSuspended"'),
    ("POST", "/api/jobs", {"containers": ["c"], "data": {}}, '{"error":"this account is suspended'),
    ("POST", "/link/register", {"models": [], "public_key": "0" * 64}, '"code":"UserSuspended"'),
]

OF_HOSTS = [
    ("POST", "/hosts/next-job", {"host_id": ""}, '{"detail":"this host '),
    ("POST", "/hosts/heartbeat", {"host_id": ""}, '{"detail":"this host '),
    ("POST", "/hosts/jobs/job_00/chunk", {"host_id": "", "tokens": []}, '{"detail":"this host '),
    ("POST", "/hosts/complete-job/job_00", {"host_id": ""}, '{"detail":"this host '),
    ("POST", "/house/host/jobs/next", {}, '"code":"Host'),
    ("POST", "/house/host/pulse", {}, '"code":"Host'),
    ("POST", "/house/host/jobs/job_00/frames", {}, '"code":"Host'),
    ("POST", "/link/pulse", {}, '"code":"Host'),
    ("GET", "/house/host", None, '"code":"Host'),
]


class TestRefusals:
    async def test_a_suspended_user_is_told_why_in_every_dialect_and_let_in_again(self, post: Caller) -> None:
        user = await add_user(post.post.core, username="mallory", email=None, password="correct-horse")
        me = f"/users/{public('usr', user.user.id)}"
        assert (await asked(post, "GET", "/v1/models", key=user.key))[0] == 200

        assert (await act(post, me + "/suspend"))[0] == 200

        for method, path, body, shape in OF_USERS:
            status, text = await asked(post, method, path, key=user.key, body=body)
            assert (status, WHY in text, shape in text) == (403, True, True), (path, text)
        basic = {"authorization": aiohttp.encode_basic_auth("mallory", "correct-horse")}
        async with post._session.get(post.post.url + "/users/me", headers=basic) as answer:
            assert answer.status == 403 and WHY in await answer.text()
        assert (await act(post, "/users/MALLORY/resume"))[0] == 200
        assert (await asked(post, "GET", "/v1/models", key=user.key))[0] == 200

    @pytest.mark.parametrize("verb", ["suspend", "retire"])
    async def test_a_host_is_told_why_on_every_path_of_every_transport(self, post: Caller, verb: str) -> None:
        core = post.post.core
        made = await add_host(core, NewHost(gpu="x", models=(ModelOffer("m", ["chat"]),), transport=LINK))
        name = public("host", made.host_id)
        assert (await asked(post, "GET", "/house/host", key=made.key))[0] == 200

        assert (await act(post, f"/hosts/{name}/{verb}"))[0] == 200

        for method, path, body, shape in OF_HOSTS:
            status, text = await asked(post, method, path, key=made.key, body=body)
            assert (status, WHY in text, shape in text) == (403, True, True), (path, text)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await post._session.ws_connect(post.post.url + "/link", headers={"authorization": f"Bearer {made.key}"})
        assert refused.value.status == 403

    async def test_a_name_in_quarantine_is_refused_in_every_dialect(self, post: Caller) -> None:
        core, key = post.post.core, post.post.buyer_key
        await add_host(core, NewHost(gpu="x", models=(ModelOffer("fake/llama", ["chat"], 4096, 1, 1),)))
        assert (await asked(post, "GET", "/v1/models/fake/llama", key=key))[0] == 200

        assert (await act(post, "/models/quarantine", model="fake/llama"))[0] == 200

        for path, body, shape in (
            ("/v1/chat/completions", {**CHAT, "model": "fake/llama"}, '"code":"model_quarantined"'),
            ("/run/model", {"model": "fake/llama", "input_text": "hi"}, '{"detail":"the model '),
            (
                "/house/jobs",
                {"model": "fake/llama", "kind": "chat", "body": CHAT, "output_max": 9},
                '"code":"ModelQuarantined"',
            ),
        ):
            status, text = await asked(post, "POST", path, key=key, body=body)
            assert (status, WHY in text, shape in text) == (403, True, True), (path, text)
        status, text = await asked(post, "POST", "/api/jobs", key=key, body={"containers": ["fake/llama"], "data": {}})
        assert (status, WHY in text) == (405, True), text
        for path in ("/v1/models", "/models", "/house/models", "/house/hosts?model=fake/llama"):
            assert "fake/llama" not in (await asked(post, "GET", path, key=key))[1], path
        assert (await asked(post, "GET", "/v1/models/fake/llama", key=key))[0] == 404
        assert (await act(post, "/models/release", model="fake/llama"))[0] == 200
        assert (await asked(post, "GET", "/v1/models/fake/llama", key=key))[0] == 200


class TestActs:
    @pytest.mark.parametrize("key", [None, "buyer", "stranger"])
    async def test_only_an_operator_acts_or_reads_the_record(self, post: Caller, key: str | None) -> None:
        wanted = 401 if key is None else 403
        for path in ("/users/eve/suspend", "/hosts/host_" + "0" * 32 + "/retire", "/models/quarantine"):
            assert (await act(post, path, key=key))[0] == wanted, path
        assert (await post.get("/acts", key=key))[0] == wanted
        assert (await post.get("/hosts?status=suspended", key=key))[0] == 403

    @pytest.mark.parametrize(
        ("path", "fields", "status", "code"),
        [
            ("/users/nobody/suspend", {}, 404, "UnknownUser"),
            ("/users/usr_" + "0" * 32 + "/suspend", {}, 404, "UnknownUser"),
            ("/users/eve/resume", {}, 409, "NothingToLift"),
            ("/users/root/suspend", {}, 409, "LastOperator"),
            ("/hosts/host_" + "0" * 32 + "/suspend", {}, 404, "UnknownHost"),
            ("/hosts/mine/retire", {}, 404, "UnknownHost"),
            ("/models/release", {"model": "free"}, 409, "NothingToLift"),
            ("/models/quarantine", {}, 422, "InvalidField"),
            ("/models/quarantine", {"model": "a\nb"}, 422, "InvalidField"),
            ("/models/quarantine", {"model": "m", "reason": ""}, 422, "InvalidField"),
            ("/models/quarantine", {"model": "m", "reason": "x" * 501}, 422, "InvalidField"),
        ],
    )
    async def test_what_can_not_be_done_is_refused_and_not_recorded(
        self, post: Caller, path: str, fields: dict[str, str], status: int, code: str
    ) -> None:
        before = (await post.get("/acts", key="admin"))[1]

        answer = await act(post, path, **fields)

        assert (answer[0], answer[1]["error"]["code"]) == (status, code)
        assert (await post.get("/acts", key="admin"))[1] == before

    async def test_a_late_repeat_decides_nothing_new(self, post: Caller) -> None:
        _, first = await act(post, "/models/quarantine", model="late", once="incident-7")
        await act(post, "/models/release", model="late")

        assert await act(post, "/models/quarantine", model="late", once="incident-7") == (200, first)
        assert "late" not in post.post.core.moderation.quarantined

    async def test_the_record_says_who_what_and_why_page_by_page(self, post: Caller) -> None:
        for name in ("one", "two", "three"):
            await act(post, "/models/quarantine", model=name)

        _, page = await post.get("/acts?limit=2", key="admin")
        _, older = await post.get(f"/acts?limit=1&before={page['next']}", key="admin")

        assert [one["subject"] for one in page["acts"] + older["acts"]] == ["three", "two", "one"]
        assert {one["verb"] for one in page["acts"]} == {"model.quarantine"}
        assert (await post.get(f"/acts?before={2**63 - 1}", key="admin"))[0] == 200
        assert (await post.get(f"/acts?before={2**63}", key="admin"))[0] == 422
        assert [(one["operator"], one["reason"]) for one in page["acts"]] == [("root", WHY)] * 2


class TestSuspendedHosts:
    async def test_they_are_listed_for_operators_and_their_owner_only(self, post: Caller) -> None:
        core, owner = post.post.core, post.post.buyer_id
        models = (ModelOffer("mine", ["chat"]),)
        mine, other = [
            (await add_host(core, NewHost(gpu="x", models=models, owner_id=owner))).host_id for _ in range(2)
        ]
        await act(post, f"/hosts/{public('host', mine)}/suspend")

        for path, key in (("/hosts?status=suspended", "admin"), ("/hosts?mine=true&status=suspended", "buyer")):
            status, page = await post.get(path, key=key)
            assert status == 200
            assert (public("host", mine), "suspended") in {(one["id"], one["status"]) for one in page["hosts"]}
            assert public("host", other) not in {one["id"] for one in page["hosts"]}
        _, page = await post.get("/hosts?mine=true")
        assert {one["id"]: one["status"] for one in page["hosts"]} == {
            public("host", other): "active",
            public("host", mine): "suspended",
        }
        status, text = await asked(post, "GET", "/admin/hosts?limit=1000", key=post.post.admin_key)
        assert {one["host_id"]: one["status"] for one in msgspec.json.decode(text)["hosts"]}[
            public("host", mine)
        ] == "suspended"
        _, page = await post.get("/hosts?mine=true&offset=1&limit=1")
        assert ([one["id"] for one in page["hosts"]], page["total"]) == ([public("host", mine)], 2)
        for path in ("/house/hosts", "/hosts"):
            assert public("host", mine) not in (await asked(post, "GET", path, key=post.post.buyer_key))[1]


class TestAnOperator:
    async def test_who_is_suspended_no_longer_acts(self, post: Caller) -> None:
        second = await add_user(post.post.core, username="two", email=None, password=None, role=Role.ADMIN)
        assert (await post.get("/acts", key=second.key))[0] == 200

        await act(post, "/users/two/suspend")

        assert (await act(post, "/users/root/suspend", key=second.key))[0] == 403
