"""Files of jobs over HTTP: what an order may name, and what the host that has the job may read and upload."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from click.testing import CliRunner

from comptoir.cli.main import program
from comptoir.dispatch.files import Files
from comptoir.dispatch.onboard import add_user
from comptoir.kinds.files import Fetched, file_frame
from comptoir.receipts import ReceiptFile, ReceiptFiles, read_registry, verify
from tests.post import Post, open_post
from tests.tcp import stop
from tests.working import TARGET, Customer, Smith, items, sha

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATA = b"0123456789" * 100


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def post(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Post]:
    limits = {"file_bytes_max": 5_000, "artifacts_bytes_per_job_max": 8_000, "files_bytes_per_owner_max": 20_000}
    async with open_post(tmp_path_factory.mktemp("work"), kinds=(TARGET,), **limits) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def smith(post: Post, session: aiohttp.ClientSession) -> Smith:
    """The only host."""
    return await Smith.register(session, post.url)


@pytest_asyncio.fixture(loop_scope="module")
async def buyer(post: Post, session: aiohttp.ClientSession, smith: Smith) -> Customer:
    """A user of each test's own, where there is a host."""
    made = await add_user(post.core, username=f"user{next(NUMBERS)}", email=None, password=None, of_the_house=True)
    return Customer(session, post.url, made.key)


NUMBERS = iter(range(1_000))


@pytest_asyncio.fixture(loop_scope="module")
async def working(post: Post, smith: Smith, buyer: Customer) -> AsyncIterator[Smith]:
    """The host with a job on one file of the buyer's; given back at the end."""
    await buyer.buy({"file": await buyer.put(DATA)})
    await smith.take()
    yield smith
    await buyer.ask("POST", f"/house/jobs/{smith.job}/cancel")
    await post.core.background.drain_tasks()


class TestOrder:
    async def test_what_is_known_of_its_files_is_in_what_the_host_gets(self, buyer: Customer, smith: Smith) -> None:
        file = await buyer.put(DATA, "a.txt")
        job = await buyer.buy(
            {"file": file}, {"file": file, "name": "b", "sha256": sha(DATA)}, {"url": "https://x.example/c"}
        )

        await smith.take()

        assert smith.job == job
        known = [{"name": name, "file": file, "sha256": sha(DATA), "size": 1000} for name in ("a.txt", "b")]
        assert json.loads(smith.body) == {"inputs": [*known, {"url": "https://x.example/c"}], "how": 1.0}
        assert b'"how":1.0' in smith.body
        await buyer.ask("POST", f"/house/jobs/{job}/cancel")

    async def test_what_is_no_input_is_refused_by_its_field_and_nothing_is_held(
        self, post: Post, buyer: Customer, session: aiohttp.ClientSession
    ) -> None:
        mine, gone = await buyer.put(DATA), await buyer.put(b"gone", "gone")
        await buyer.ask("DELETE", f"/house/files/{gone}")
        stranger = await add_user(post.core, username="stranger", email=None, password=None)
        theirs = await Customer(session, post.url, stranger.key).put(b"theirs")
        half = await buyer.ask("POST", "/house/uploads", **{"tus-resumable": "1.0.0", "upload-length": "9"})
        unfinished = half.headers["location"].rpartition("/")[2]
        cases: list[tuple[list[dict[str, Any]], str]] = [
            ([{"file": mine}, {"file": gone}], "body.inputs[1].file"),
            ([{"file": theirs}], "body.inputs[0].file"),
            ([{"file": unfinished}], "body.inputs[0].file"),
            ([{"file": "file_1"}], "body.inputs[0].file"),
            ([{"file": mine, "sha256": "0" * 64}], "body.inputs[0].sha256"),
            ([{"file": mine, "size": 1}], "body.inputs[0].size"),
            ([{}], "body.inputs[0]"),
            ([{"file": mine, "url": "https://x.example/"}], "body.inputs[0]"),
            ([{"file": mine, "name": ".."}], "body"),
            ([{"file": mine}, {"url": "https://x.example/d/a.txt"}], "body.inputs[1].name"),
            ([{"url": "http://127.0.0.1/"}], "body.inputs[0].url"),
            ([{"url": "file:///etc/passwd"}], "body.inputs[0].url"),
        ]

        told = [await buyer.order(*inputs) for inputs, _ in cases]

        assert [(one.status, one.json["error"].get("field")) for one in told] == [(422, field) for _, field in cases]
        assert (await buyer.ask("GET", "/house/me")).json["account"]["held_uusd"] == 0
        assert await post.core.db.fetch("SELECT * FROM file_keeps") == []

    async def test_a_repeat_gets_the_job_though_its_file_is_gone(self, buyer: Customer) -> None:
        file = await buyer.put(DATA)
        first = await buyer.order({"file": file}, **{"idempotency-key": "k1"})
        await buyer.ask("DELETE", f"/house/files/{file}")

        again = await buyer.order({"file": file}, **{"idempotency-key": "k1"})

        assert (again.status, again.json["id"]) == (201, first.json["id"])
        await buyer.ask("POST", f"/house/jobs/{first.json['id']}/cancel")

    async def test_nothing_is_kept_for_an_order_that_its_buyer_cannot_pay(self, post: Post, buyer: Customer) -> None:
        body = {
            "kind": "work",
            "model": "smith",
            "output_max": 10**9,
            "body": {"inputs": [{"file": await buyer.put(DATA)}]},
        }

        told = await buyer.ask("POST", "/house/jobs", body)

        assert told.status == 402
        assert await post.core.db.fetch("SELECT * FROM file_keeps") == []


class TestInputs:
    async def test_it_is_read_whole_and_in_parts(self, working: Smith) -> None:
        whole, head = await working.input(0), await working.input(0, method="HEAD")
        part = await working.input(0, range="bytes=990-")
        etag = whole.headers["etag"]

        assert (whole.status, whole.body, etag) == (200, DATA, f'"{sha(DATA)}"')
        assert (head.status, head.headers["content-length"], head.headers["etag"]) == (200, "1000", etag)
        assert (part.status, part.body, part.headers["content-range"]) == (206, DATA[990:], "bytes 990-999/1000")

    async def test_it_stays_readable_when_its_owner_deletes_it(self, working: Smith, buyer: Customer) -> None:
        (mine,) = (await buyer.ask("GET", "/house/files")).json["files"]
        await buyer.ask("DELETE", f"/house/files/{mine['id']}")

        assert (await buyer.ask("GET", f"/house/files/{mine['id']}")).status == 404
        assert (await working.input(0)).body == DATA

    async def test_only_the_lease_opens_it(
        self, post: Post, working: Smith, buyer: Customer, session: aiohttp.ClientSession
    ) -> None:
        other = await Smith.register(session, post.url)
        other.job, other.lease = working.job, working.lease

        told = [
            await other.input(0),
            await working.input(0, x_comptoir_lease="att_" + "0" * 32),
            await working.input(0, x_comptoir_lease="mine"),
            await working.input(0, authorization=f"Bearer {buyer.key}"),
            await working.input(1),
            await working.input("x"),  # type: ignore[arg-type]
        ]

        assert [(one.status, one.code) for one in told] == [
            (409, "NotYourLease"), (409, "NotYourLease"), (422, "InvalidField"), (403, "NotAllowed"), (404, "UnknownFile"),
            (404, "UnknownFile"),
        ]  # fmt: skip

    async def test_after_the_end_it_is_closed(self, post: Post, working: Smith) -> None:
        await working.done(0)

        assert (await working.input(0)).code == "NotYourLease"
        assert (await working.begin(5)).code == "NotYourLease"


class TestArtifacts:
    async def test_an_upload_goes_on_after_a_cut_and_is_the_buyers(self, working: Smith, buyer: Customer) -> None:
        begun = await working.begin(1_000, filename="out.bin", filetype="video/mp4")
        location = begun.headers["location"]
        first = await working.go_on(location, 0, DATA[:400])
        twice = await working.go_on(location, 0, DATA[:400])
        looked = await working.look(location)
        last = await working.go_on(location, 400, DATA[400:])

        assert (begun.status, location.startswith(f"/house/host/jobs/{working.job}/artifacts/file_")) == (201, True)
        assert (first.status, first.headers["upload-offset"]) == (204, "400")
        assert (twice.status, twice.code, twice.headers["upload-offset"]) == (409, "OffsetMismatch", "400")
        assert (looked.headers["upload-offset"], looked.headers["upload-length"]) == ("400", "1000")
        file = last.headers["x-comptoir-file"]
        assert (last.status, location.rpartition("/")[2]) == (204, file)
        shown = [one for one in (await buyer.ask("GET", "/house/files")).json["files"] if one["id"] == file]
        assert [(one["name"], one["media"], one["sha256"]) for one in shown] == [("out.bin", "video/mp4", sha(DATA))]

    async def test_no_bytes_are_complete_at_their_beginning(self, working: Smith) -> None:
        begun = await working.begin(0, filename="empty")
        looked = await working.look(begun.headers["location"])

        assert begun.headers["x-comptoir-file"] == looked.headers["x-comptoir-file"]
        assert (await working.show(await working.deliver(b""))).status == 200

    async def test_what_has_no_room_is_the_buyers_fault_and_says_nothing_of_the_buyers_other_files(
        self, working: Smith, buyer: Customer
    ) -> None:
        too_large = await working.begin(5_001, filename="a")
        await working.deliver(bytes(4_000))
        for_the_job = await working.begin(4_001, filename="a")
        rest = await buyer.ask("GET", "/house/files")
        await buyer.ask("POST", "/house/uploads", **{"tus-resumable": "1.0.0", "upload-length": "5000"})
        for _ in range(2):
            await buyer.put(bytes(5_000), "fill")
        for_the_buyer = await working.begin(1, filename="a")

        assert rest.json["bytes_used"] == 5_000
        for told in (too_large, for_the_job, for_the_buyer):
            assert (told.status, told.code) == (507, "NoRoomForArtifact")
        assert "4000" not in for_the_buyer.json["error"]["message"]

    async def test_one_given_up_counts_no_more_and_a_complete_one_stays(self, working: Smith, buyer: Customer) -> None:
        before = (await buyer.ask("GET", "/house/files")).json["bytes_used"]
        location = (await working.begin(3_000, filename="a")).headers["location"]
        given_up = await working.look(location, method="DELETE")
        made = await working.deliver(b"made")
        complete = f"/house/host/jobs/{working.job}/artifacts/{made.file}"

        kept = await working.look(complete, method="DELETE")

        assert (given_up.status, kept.status, kept.code) == (204, 403, "NotAllowed")
        assert (await working.look(location)).status == 404
        assert (await buyer.ask("GET", "/house/files")).json["bytes_used"] == before + 4

    async def test_bytes_that_are_not_those_that_were_said_are_given_up(self, working: Smith, buyer: Customer) -> None:
        before = (await buyer.ask("GET", "/house/files")).json["bytes_used"]
        begun = await working.begin(4, filename="a", sha256=sha(b"said"))

        told = await working.go_on(begun.headers["location"], 0, b"came")

        assert (told.status, told.code) == (422, "ChecksumMismatch")
        assert (await buyer.ask("GET", "/house/files")).json["bytes_used"] == before

    async def test_another_lease_of_the_same_job_does_not_go_on_with_it(
        self, post: Post, working: Smith, session: aiohttp.ClientSession
    ) -> None:
        location = (await working.begin(9, filename="a")).headers["location"]
        lost = working.lease
        other = await Smith.register(session, post.url)
        await working.fail()
        await other.take()

        assert other.job == working.job
        assert (await other.go_on(location, 0, b"123")).code == "UnknownFile"
        assert (await working.go_on(location, 0, b"123")).code == "NotYourLease"
        assert lost != other.lease


async def files_of(buyer: Customer) -> set[str]:
    """Return the names of the buyer's files."""
    return {one["name"] for one in (await buyer.ask("GET", "/house/files")).json["files"]}


class TestFrames:
    async def test_what_its_result_names_stays_and_the_rest_goes_with_its_end(
        self, post: Post, working: Smith, buyer: Customer
    ) -> None:
        named, empty = await working.deliver(b"result", name="result"), await working.deliver(b"", name="empty")
        await working.deliver(b"scratch", name="scratch")
        await working.begin(100, filename="half")
        before = await files_of(buyer)

        shown = await working.show(named, empty, count=2)
        done = await working.done(4)
        await post.core.background.drain_tasks()

        assert (shown.status, done.status, done.json["tokens"]) == (200, 200, 4)
        assert (before, await files_of(buyer)) == (
            {"a.txt", "result", "empty", "scratch"},
            {"a.txt", "result", "empty"},
        )
        await post.core.state(Files).collect()
        assert (await buyer.ask("GET", "/house/files")).json["bytes_used"] == len(DATA) + len(b"result")
        assert await post.core.db.fetch("SELECT * FROM file_keeps") == []
        assert (await buyer.ask("GET", f"/house/files/{named.file}")).body == b"result"

    async def test_a_lie_ends_the_attempt_and_the_next_host_begins_again_without_its_files(
        self, post: Post, working: Smith, buyer: Customer, session: aiohttp.ClientSession
    ) -> None:
        other = await Smith.register(session, post.url)
        first, lie = await working.deliver(b"first", name="first"), await working.deliver(b"made", name="lie")
        await working.show(first)

        told = await working.show(msgspec.structs.replace(lie, size=5))
        await other.take()
        made = await other.deliver(b"second", name="second")
        await other.send(file_frame(begun_again=True), file_frame("", 1, artifact=made))
        await other.done(1)
        await post.core.background.drain_tasks()

        assert (told.status, told.code) == (422, "BadFrame")
        assert await files_of(buyer) == {"a.txt", "second"}
        job = (await buyer.ask("GET", f"/house/jobs/{working.job}")).json
        assert [(one["state"], one["fault"]) for one in job["attempts"]] == [("failed", "host"), ("done", None)]

    async def test_a_job_that_is_cancelled_keeps_what_was_delivered_and_no_more(
        self, post: Post, working: Smith, buyer: Customer
    ) -> None:
        made = await working.deliver(b"made", name="made")
        await working.deliver(b"scratch", name="scratch")
        await working.show(made)

        await buyer.ask("POST", f"/house/jobs/{working.job}/cancel")
        await post.core.background.drain_tasks()

        assert await files_of(buyer) == {"a.txt", "made"}

    async def test_a_host_that_is_called_names_files_in_its_answer(
        self, tmp_path: Path, session: aiohttp.ClientSession
    ) -> None:
        """It uploads while its answer is open."""
        called = asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            job = await request.json()
            pushed.job, pushed.lease = job["job_id"], job["lease"]
            response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
            await response.prepare(request)
            made = await pushed.deliver(b"pushed", name="pushed")
            frames = {
                "type": "frames",
                "lease": job["lease"],
                "seq": 0,
                "items": items(file_frame("", 1, artifact=made)),
            }
            done = {"type": "done", "lease": job["lease"], "end_seq": 1, "usage": {"completion_tokens": 1}}
            await response.write(b"".join(json.dumps(line).encode() + b"\n" for line in (frames, done)))
            called.set()
            return response

        app = web.Application()
        app.router.add_post("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            address = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            async with open_post(tmp_path, kinds=(TARGET,), allow_private_endpoint_urls=True) as post:
                pushed = await Smith.register(session, post.url, transport="push", endpoint_url=address)
                buyer = Customer(session, post.url, post.buyer_key)
                job = await buyer.buy()
                async with asyncio.timeout(20):
                    await called.wait()
                    while (state := (await buyer.ask("GET", f"/house/jobs/{job}")).json["state"]) == "running":
                        await asyncio.sleep(0.01)
                assert (state, await files_of(buyer)) == ("completed", {"pushed"})
        finally:
            await stop(runner)


class TestShown:
    async def test_the_job_and_its_receipt_say_what_went_in_and_came_out(
        self, post: Post, smith: Smith, buyer: Customer
    ) -> None:
        address = "https://x.example/d/b.csv"
        job = await buyer.buy({"file": await buyer.put(DATA)}, {"url": address}, {"url": "https://x.example/c"})
        waiting = (await buyer.ask("GET", f"/house/jobs/{job}")).json
        await smith.take()
        made = await smith.deliver(b"made", name="made.png")
        got = Fetched(1, 7, sha(b"fetched"))
        await smith.send(
            file_frame(fetched=got), file_frame("", 1, artifact=msgspec.structs.replace(made, media="image/png"))
        )
        running = (await buyer.ask("GET", f"/house/jobs/{job}")).json
        await smith.done(1)
        post.core.jobs.live.forget_recent(older_than_ms=2**60)
        over = (await buyer.ask("GET", f"/house/jobs/{job}")).json

        given = {"name": "a.txt", "file": running["inputs"][0]["file"], "size": 1000, "sha256": sha(DATA)}
        unknown, known = (
            {"name": "b.csv", "url": address},
            {"name": "b.csv", "url": address, "size": 7, "sha256": got.sha256},
        )
        never = {"name": "c", "url": "https://x.example/c"}
        out = {"name": "made.png", "file": made.file, "size": 4, "sha256": sha(b"made"), "media": "image/png"}
        assert (waiting["inputs"], waiting["artifacts"]) == ([given, unknown, never], [])
        for shown in (running, over):
            assert (shown["inputs"], shown["artifacts"]) == ([given, known, never], [out])

        envelope = (await buyer.ask("GET", f"/house/jobs/{job}/receipt")).body
        verdict = verify(envelope, read_registry(await post.core.receipts.registry()))
        assert verdict.ok and verdict.statement is not None, verdict
        assert verdict.statement.predicate.files == ReceiptFiles(
            [ReceiptFile("a.txt", sha(DATA), 1000), ReceiptFile("b.csv", got.sha256, 7, fetched=True)],
            [ReceiptFile("made.png", sha(b"made"), 4)],
        )
        words = ["receipt", "show", job, "--url", post.url, "--key", buyer.key]
        printed = await asyncio.to_thread(CliRunner(env={"COLUMNS": "200"}).invoke, program, words)
        rows = [line.split() for line in printed.output.splitlines()]
        assert printed.exit_code == 0, printed.output
        assert ["out", "made.png", "4", sha(b"made")] in rows
        assert ["in", "b.csv", "(fetched,", "by", "its", "host's", "word)", "7", got.sha256] in rows

    async def test_what_was_fetched_is_what_was_asked_for(self, post: Post, smith: Smith, buyer: Customer) -> None:
        for asked, said in (
            ({"url": "https://x.example/a", "sha256": sha(b"a")}, Fetched(0, 1, sha(b"b"))),
            ({"url": "https://x.example/a", "size": 2}, Fetched(0, 1, sha(b"a"))),
            ({"url": "https://x.example/a"}, Fetched(1, 1, sha(b"a"))),
            ({"file": await buyer.put(b"a")}, Fetched(0, 1, sha(b"a"))),
        ):
            job = await buyer.buy(asked)
            await smith.take()
            assert (await smith.send(file_frame(fetched=said))).code == "BadFrame", asked
            await buyer.ask("POST", f"/house/jobs/{job}/cancel")

    async def test_a_job_without_files_has_no_such_fields_to_read(
        self, post: Post, buyer: Customer, smith: Smith
    ) -> None:
        job = await buyer.buy()
        shown = (await buyer.ask("GET", f"/house/jobs/{job}")).json
        await buyer.ask("POST", f"/house/jobs/{job}/cancel")
        envelope = (await buyer.ask("GET", f"/house/jobs/{job}/receipt")).body
        verdict = verify(envelope, read_registry(await post.core.receipts.registry()))

        assert (shown["inputs"], shown["artifacts"]) == ([], [])
        assert verdict.statement is not None and verdict.statement.predicate.files is None

    async def test_metrics_count_what_is_kept_and_what_moved(
        self, post: Post, smith: Smith, buyer: Customer, session: aiohttp.ClientSession
    ) -> None:
        async def scraped() -> dict[str, float]:
            await post.core.state(Files).collect()
            async with session.get(post.url + "/metrics", headers={"accept": "text/plain"}) as answer:
                lines = [line.rsplit(" ", 1) for line in (await answer.text()).splitlines() if line[0] != "#"]
            return {
                name: float(value)
                for name, value in lines
                if "file" in name or "uploads" in name or "artifacts" in name
            }

        await post.core.background.drain_tasks()
        before = await scraped()
        job = await buyer.buy({"file": await buyer.put(DATA)})
        await smith.take()
        await smith.input(0, range="bytes=0-99")
        made = await smith.deliver(b"made")
        half = (await smith.begin(50, filename="half")).headers["location"]
        await smith.go_on(half, 0, b"12345")
        during = await scraped()
        await smith.show(made)
        await smith.done(1)
        await post.core.background.drain_tasks()
        after = await scraped()

        assert job == smith.job
        names = (
            "comptoir_files", "comptoir_files_bytes", "comptoir_uploads_open", 'comptoir_file_bytes_total{direction="up"}',
            'comptoir_file_bytes_total{direction="down"}', "comptoir_artifacts_total",
        )  # fmt: skip
        assert [during[name] - before[name] for name in names] == [3, 1_054, 1, 1_009, 100, 0]
        assert [after[name] - before[name] for name in names] == [2, 1_004, 0, 1_009, 100, 1]
