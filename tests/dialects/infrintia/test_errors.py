"""Errors: every one in FastAPI's shape, naming the field and the limit; the table is total."""

import json
from typing import Any

import msgspec
import pytest

from comptoir.dialects.infrintia import DIALECT
from comptoir.dialects.infrintia.errors import render_error, status_of
from comptoir.dispatch.errors import FramesOutOfOrder, QueueFull
from comptoir.gateway import STATUSES
from comptoir.kit.errors import InvalidField, NotAuthenticated, Refusal, TooManyRequests, Unavailable
from comptoir.kit.http import openapi_document
from comptoir.ledger import InsufficientCredit
from tests.dialects.infrintia.caller import LLAMA, REGISTRATION
from tests.dialects.infrintia.conftest import Market

RUN = {"model": LLAMA, "input_text": "x"}
USER = {"username": "bob", "email": "bob@example.com", "password": "long-enough"}


def refusals(parent: type[Refusal] = Refusal) -> list[type[Refusal]]:
    """Return every refusal there is."""
    return [each for child in parent.__subclasses__() for each in (child, *refusals(child))]


@pytest.mark.asyncio(loop_scope="module")
class TestFields:
    @pytest.mark.parametrize(
        ("path", "body", "loc", "kind"),
        [
            ("/run/model", {"model": LLAMA}, ["body", "input_text"], "missing"),
            ("/run/model", {"input_text": "x"}, ["body", "model"], "missing"),
            ("/run/model", RUN | {"max_tokens": "many"}, ["body", "max_tokens"], "type_error"),
            ("/run/model", RUN | {"max_tokens": 0}, ["body", "max_tokens"], "value_error"),
            ("/run/model", RUN | {"max_tokens": 200_000}, ["body", "max_tokens"], "value_error"),
            ("/run/model", RUN | {"max_tokens": 2.5}, ["body", "max_tokens"], "type_error"),
            ("/run/model", RUN | {"temperature": 3}, ["body", "temperature"], "value_error"),
            ("/run/model", RUN | {"input_text": ""}, ["body", "input_text"], "value_error"),
            ("/run/model", [], ["body"], "type_error"),
            ("/run/model", b"{nonsense", ["body"], "json_invalid"),
            ("/run/model", b"", ["body"], "json_invalid"),
            ("/users", USER | {"username": "a b"}, ["body", "username"], "value_error"),
            ("/users", USER | {"email": "nowhere"}, ["body", "email"], "value_error"),
            ("/users", USER | {"password": "short"}, ["body", "password"], "value_error"),
            ("/hosts/register", REGISTRATION | {"models": []}, ["body", "models"], "value_error"),
            ("/hosts/register", REGISTRATION | {"models": ["a", "a"]}, ["body", "models"], "value_error"),
            ("/hosts/register", REGISTRATION | {"models": ["a", ""]}, ["body", "models", 1], "value_error"),
            ("/hosts/register", REGISTRATION | {"models": ["a\n"]}, ["body", "models", 0], "value_error"),
            ("/hosts/register", REGISTRATION | {"price_per_token": -1}, ["body", "price_per_token"], "value_error"),
            ("/hosts/register", REGISTRATION | {"price_per_token": 1e-13}, ["body", "price_per_token"], "value_error"),
            ("/hosts/register", REGISTRATION | {"price_per_token": 2}, ["body", "price_per_token"], "value_error"),
            ("/hosts/register", REGISTRATION | {"gpu": "g" * 201}, ["body", "gpu"], "value_error"),
            (
                "/hosts/register",
                REGISTRATION | {"endpoint_url": "http://[::1/"},
                ["body", "endpoint_url"],
                "value_error",
            ),
            (
                "/hosts/register",
                REGISTRATION | {"endpoint_url": "ftp://x.example"},
                ["body", "endpoint_url"],
                "value_error",
            ),
        ],
    )
    async def test_the_field_is_named(self, shared: Market, path: str, body: Any, loc: list[object], kind: str) -> None:
        answer = await shared.buyer.post(path, body)

        assert answer.status == 422
        (detail,) = answer.body["detail"]
        assert (detail["loc"], detail["type"]) == (loc, kind)
        assert detail["msg"]

    @pytest.mark.parametrize("number", ["1e999999", "1E+400000000", "-1e-999999", "1e-999999"])
    async def test_numbers_beyond_all_bounds_are_refused(self, shared: Market, number: str) -> None:
        body = json.dumps(REGISTRATION).replace("0.0001", number)

        assert (await shared.anyone.post("/hosts/register", body.encode())).status == 422

    @pytest.mark.parametrize(
        ("path", "loc"),
        [
            ("/jobs?limit=0", ["query", "limit"]),
            ("/jobs?limit=x", ["query", "limit"]),
            ("/jobs?offset=-1", ["query", "offset"]),
            ("/jobs?status=lost", ["query", "status"]),
            ("/hosts?status=x", ["query", "status"]),
            ("/admin/users?limit=1001", ["query", "limit"]),
        ],
    )
    async def test_so_it_is_in_the_query(self, shared: Market, path: str, loc: list[str]) -> None:
        answer = await shared.admin.get(path)

        assert (answer.status, answer.body["detail"][0]["loc"]) == (422, loc)

    async def test_so_it_is_in_headers(self, shared: Market) -> None:
        bad_event = await shared.buyer.get("/jobs/job_def456/stream", last_event_id="x")
        bad_key = await shared.buyer.run(idempotency_key="k" * 256)

        assert bad_event.body["detail"][0]["loc"] == ["header", "last-event-id"]
        assert bad_key.body["detail"][0]["loc"] == ["header", "idempotency-key"]


@pytest.mark.asyncio(loop_scope="module")
class TestWho:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/users/me"),
            ("POST", "/run/model"),
            ("GET", "/jobs"),
            ("POST", "/hosts/next-job"),
            ("GET", "/admin/users"),
        ],
    )
    async def test_nobody_is_asked_for_a_credential(self, shared: Market, method: str, path: str) -> None:
        answer = await shared.anyone.ask(method, path, body={} if method == "POST" else None)

        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert isinstance(answer.body["detail"], str)

    async def test_a_wrong_credential_is_refused_also_where_none_is_needed(self, shared: Market) -> None:
        assert (await shared.anyone.get("/users/me", authorization="Bearer ck_wrong")).status == 401
        assert (await shared.anyone.post("/hosts/register", REGISTRATION, authorization="Bearer ck_no")).status == 401

    async def test_the_wrong_kind_of_key_is_forbidden(self, shared: Market) -> None:
        host = await shared.anyone.register()

        assert (await host.get("/users/me")).status == 403
        assert (await shared.buyer.post("/hosts/next-job", {"host_id": host.host_id})).status == 403
        assert (await shared.buyer.get("/admin/hosts")).status == 403
        assert (await host.post("/hosts/register", REGISTRATION)).status == 403

    async def test_a_host_speaks_for_itself_only(self, shared: Market) -> None:
        one, other = await shared.anyone.register(), await shared.anyone.register()

        assert (await one.post("/hosts/heartbeat", {"host_id": other.host_id})).status == 403
        assert (await one.post("/hosts/heartbeat", {"host_id": "host_xyz"})).status == 404

    async def test_another_users_job_is_unknown(self, shared: Market) -> None:
        await shared.anyone.register()
        job_id = (await shared.buyer.run()).body["job_id"]

        for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/stream", "/jobs/job_def456", "/jobs/job_def456/stream"):
            answer = await shared.admin.get(path)
            assert (answer.status, answer.body) == (404, {"detail": "no such job"})
        assert (await shared.admin.post(f"/jobs/{job_id}/cancel")).status == 404


class TestRefusals:
    async def test_credit_that_is_not_there(self, market: Market) -> None:
        await market.anyone.register(price_per_token=0.01)

        answer = await market.buyer.run(max_tokens=256)

        assert answer.status == 402
        assert (answer.body["credits_needed"], answer.body["credits_free"]) == (256.0, 100.0)

    async def test_a_model_nobody_offers(self, market: Market) -> None:
        answer = await market.buyer.post("/run/model", RUN | {"model": "nobody/has-it"})

        assert answer.status == 404
        assert "nobody/has-it" in answer.body["detail"]
        assert (await market.buyer.get("/models/nobody/has-it")).status == 404

    async def test_a_job_no_host_could_run(self, market: Market) -> None:
        await market.anyone.register()

        answer = await market.buyer.run(max_tokens=8000)

        assert answer.status == 422
        assert "context length" in answer.body["detail"]

    async def test_a_name_that_is_taken(self, market: Market) -> None:
        taken = await market.anyone.post("/users", USER | {"username": "ADA"})
        email = await market.anyone.post("/users", USER | {"email": "ada@example.org"})

        assert (taken.status, taken.body["detail"]) == (409, "username: ADA is taken")
        assert email.status == 409

    async def test_a_finished_job_can_not_be_cancelled(self, market: Market) -> None:
        host = await market.anyone.register()
        await market.buyer.run()
        job_id = (await host.next_job()).body["job_id"]
        await host.complete(job_id, tokens=["x"])

        answer = await market.buyer.post(f"/jobs/{job_id}/cancel")

        assert (answer.status, answer.body) == (409, {"detail": "the job is already completed"})

    @pytest.mark.parametrize("settings", [{"jobs_per_buyer_max": 1}])
    async def test_too_many_unfinished_jobs(self, market: Market) -> None:
        await market.anyone.register()
        await market.buyer.run()

        answer = await market.buyer.run()

        assert (answer.status, answer.headers["retry-after"]) == (429, "1")

    @pytest.mark.parametrize("settings", [{"body_bytes_max": 2048, "prompt_bytes_max": 1024}])
    async def test_too_much_text(self, market: Market) -> None:
        await market.anyone.register()

        assert (await market.buyer.run(text="x" * 1100)).status == 413
        assert (await market.buyer.run(text="x" * 4000)).status == 413

    @pytest.mark.parametrize("settings", [{"requests_per_minute_per_ip": 2}])
    async def test_too_many_requests(self, market: Market) -> None:
        answers = [await market.anyone.get("/models") for _ in range(3)]

        assert [answer.status for answer in answers] == [200, 200, 429]
        assert int(answers[2].headers["retry-after"]) >= 1
        assert "2 requests a minute" in answers[2].body["detail"]

    async def test_paths_and_methods(self, market: Market) -> None:
        nowhere = await market.anyone.get("/infrintia/nowhere")
        method = await market.anyone.ask("DELETE", "/infrintia/users")

        assert (nowhere.status, nowhere.body) == (404, {"detail": "Not Found"})
        assert (method.status, method.body) == (405, {"detail": "Method Not Allowed"})
        assert method.headers["allow"] == "POST"


class TestTable:
    def test_every_refusal_has_a_status_and_a_shape(self) -> None:
        """Total: whatever the house refuses has an answer, and none of them is a 500."""
        known = set(STATUSES) | set(refusals())
        assert len(known) > 30
        for error in known:
            # 507: no room for a file, which only the native dialect takes.
            assert 400 <= status_of(error) < 504 or status_of(error) == 507, error
            assert status_of(error) != 500, error

    @pytest.mark.parametrize(
        ("error", "status", "body", "retry_after"),
        [
            (
                InvalidField("models[1].name", "no"),
                422,
                [{"loc": ["body", "models", 1, "name"], "msg": "no", "type": "value_error"}],
                None,
            ),
            (NotAuthenticated("who?"), 401, "who?", None),
            (TooManyRequests("slow", retry_after_s=1.2), 429, "slow", b"2"),
            (Unavailable("away", retry_after_s=0.1), 503, "away", b"1"),
            (QueueFull(7), 503, "7 jobs are already waiting; try again later", b"5"),
            (FramesOutOfOrder(expected=3, got=5), 409, "frame 5 leaves a gap: send from 3", None),
            (
                InsufficientCredit(needed_uusd=1, free_uusd=0),
                402,
                "this needs 0.0001 credits and 0.0000 are free",
                None,
            ),
            (ZeroDivisionError("secret"), 500, "Internal Server Error", None),
        ],
    )
    def test_errors_look_as_published(
        self, error: Exception, status: int, body: object, retry_after: bytes | None
    ) -> None:
        reply = render_error(error, None)

        assert reply.status == status
        assert json.loads(reply.body)["detail"] == body
        assert dict(reply.headers).get(b"retry-after") == retry_after

    def test_the_reference_generated_from_the_declarations_is_whole(self) -> None:
        document = msgspec.json.decode(msgspec.json.encode(openapi_document(DIALECT, version="1")))

        assert len(document["paths"]) == 22
        assert document["components"]["schemas"]["Accepted"]["properties"]["credits_reserved"]["type"] == "number"
        assert set(document["paths"]["/run/model"]["post"]["responses"]) == {
            "202", "400", "401", "402", "403", "404", "413", "415", "421", "422", "429", "503"
        }  # fmt: skip
