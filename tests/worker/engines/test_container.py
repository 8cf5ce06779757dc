"""The container engine against a real container on loopback: its runs, its failures, who is there, what it says."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from comptoir.kinds import Kinds
from comptoir.link import ContainerCard, Frame, ModelOffer, Usage
from comptoir.worker.engines import container_http
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish, ReportsResources
from comptoir.worker.engines.container import ContainerEngine, checked_spec
from comptoir.worker.engines.container_spec import ContainerSpec
from comptoir.worker.engines.container_wire import STOPPED
from comptoir.worker.engines.registry import make_engine, parse_spec
from comptoir.worker.health import measure
from tests.worker.engines.container_stand_in import (
    RESOURCES,
    Answer,
    ContainerStandIn,
    after,
    appends,
    dies,
    echo,
    hang_up,
    redirects,
    says,
    serve_container,
    streams,
)
from tests.worker.engines.test_container_wire import bytes_of


@asynccontextmanager
async def running(container: ContainerStandIn, *, slots: int = 4, **options: Any) -> AsyncIterator[ContainerEngine]:
    engine = ContainerEngine(id="shout", url=container.url, slots=slots, **options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def job(data: object = None, *, stream: bool = False, containers: tuple[str, ...] = ("shout",)) -> bytes:
    return msgspec.json.encode({"containers": containers, "data": data, "stream": stream})


async def run(engine: ContainerEngine, body: bytes, *outputs: str, model: str = "shout") -> list[Frame | Finish]:
    prefix = tuple(Frame(text, 1, STOPPED) for text in outputs)
    return [item async for item in engine.run(EngineRequest("container", model, body, prefix))]


async def failure(answer: Answer, *, stream: bool = False, **options: Any) -> EngineError:
    """Return how a run fails that is answered so."""
    async with serve_container(answer) as container, running(container, **options) as engine:
        with pytest.raises(EngineError) as caught:
            await run(engine, job(stream=stream))
        port = container.url.rpartition(":")[2]
    error = caught.value
    assert port not in error.message and "127.0.0.1" not in error.message
    assert port.encode() not in error.body
    return error


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TestRun:
    async def test_its_json_is_one_frame_word_for_word(self) -> None:
        said = b'{ "output": 123456789012345678901234567890, "f": 1.50 }\n'
        async with serve_container(says(said)) as container, running(container) as engine:
            items = await run(engine, job({"input": 1}))

        assert items == [Frame(said.decode(), 1, STOPPED), Finish("stop", Usage(0, 1))]
        assert container.runs[0].json == {"source": 1, "destination": 1, "data": {"input": 1}, "requires_proof": False}
        assert container.runs[0].request.headers["Content-Type"] == "application/json"
        assert "Authorization" not in container.runs[0].request.headers

    async def test_json_counts_whatever_its_content_type_is(self) -> None:
        """A five-line container does not think of it; what is no JSON fails whatever it calls itself."""
        async with (
            serve_container(says(b"[1]", content_type="text/html")) as container,
            running(container) as engine,
        ):
            assert (await run(engine, job()))[0] == Frame("[1]", 1, STOPPED)

    async def test_a_chain_feeds_each_output_to_the_next(self) -> None:
        async with serve_container(appends("one")) as one, serve_container(appends("two")) as two:
            engine = ContainerEngine.of(
                [ContainerSpec(id="a", url=one.url), ContainerSpec(id="b", url=two.url + "/", external=False)]
            )
            await engine.start()
            body = job({}, containers=("a", "b"))
            first = (await run(engine, body, model="a"))[0]
            assert isinstance(first, Frame)
            last = (await run(engine, body, first.text, model="b"))[0]
            await engine.close()

        assert isinstance(last, Frame) and msgspec.json.decode(last.text) == {"said": ["one", "two"]}
        assert two.runs[0].data == first.text.encode()

    async def test_the_bearer_goes_along_everywhere(self) -> None:
        async with serve_container(bearer="b-1") as container, running(container, bearer="b-1") as engine:
            await run(engine, job(1))
            assert await engine.resources() == {"shout": RESOURCES}

        assert set(container.authorizations) == {"Bearer b-1"}

    async def test_a_connection_is_used_again(self) -> None:
        async with serve_container() as container, running(container) as engine:
            for number in range(20):
                await run(engine, job(number))

        assert len(container.connections) == 1

    async def test_a_kept_connection_that_was_closed_is_made_anew(self) -> None:
        async with serve_container() as container, running(container) as engine:
            await run(engine, job(1))

            async def once(run: Any) -> Any:
                container.answer = echo
                hang_up(run)
                return await echo(run)

            container.answer = once
            items = await run(engine, job(2))

        assert items[0] == Frame("2", 1, STOPPED)

    async def test_of_several_that_were_closed_none_is_tried_twice(self) -> None:
        """After a restart all of them are: the second try takes a new one."""
        async with serve_container() as container, running(container) as engine:
            together = asyncio.Event()
            kept: set[object] = set()

            async def all_at_once(asked: Any) -> Any:
                kept.add(asked.request.transport)
                if len(kept) == 3:
                    together.set()
                await together.wait()
                return await echo(asked)

            async def closed(asked: Any) -> Any:
                if asked.request.transport in kept:
                    hang_up(asked)
                return await echo(asked)

            container.answer = all_at_once
            await asyncio.gather(*(run(engine, job(number)) for number in range(3)))
            container.answer = closed
            items = await run(engine, job(4))

        assert items[0] == Frame("4", 1, STOPPED)

    async def test_another_engines_work_is_refused(self) -> None:
        async with serve_container() as container, running(container) as engine:
            for kind, model in (("chat", "shout"), ("container", "other")):
                with pytest.raises(EngineError, match="here"):
                    await anext(aiter(engine.run(EngineRequest(kind, model, job()))))

    async def test_a_large_input_and_output_come_through(self) -> None:
        text = "é" * 1_500_000
        async with serve_container() as container, running(container) as engine:
            items = await run(engine, job(text))

        assert isinstance(items[0], Frame) and msgspec.json.decode(items[0].text) == text


class TestFailures:
    @pytest.mark.parametrize(
        ("answer", "code", "fault", "words"),
        [
            (says(b'{"error":"boom"}', status=500), "container_failed", "host", '{"error":"boom"}'),
            (says(b"Traceback", status=500, content_type="text/plain"), "container_failed", "host", "Traceback"),
            (says(b"<html>hi</html>", content_type="text/html"), "container_failed", "host", "<html>hi</html>"),
            (says(b'{"a":'), "container_failed", "host", '{"a":'),
            (says(b""), "container_failed", "host", "empty"),
            (says(b'{"why":"bad"}', status=422), "container_refused", "buyer", '{"why":"bad"}'),
            (says(b"gone", status=404), "container_failed", "host", "gone"),
            (says(b"later", status=503, Retry_After="3"), "container_busy", "capacity", "later"),
            (redirects, "container_failed", "host", "a redirect (HTTP 307)"),
            (dies, "container_cut", "host", "broke before it answered"),
            (streams(b'{"a":', cut=True), "container_cut", "host", "before its output was complete"),
            (streams(b'{"a":1}', length=20), "container_cut", "host", "before its output was complete"),
            (says(b'"%b"' % (b"x" * 1000)), "container_output_too_large", "host", "larger than the 500 bytes"),
        ],
    )
    async def test_each_is_told_in_its_own_words(self, answer: Answer, code: str, fault: str, words: str) -> None:
        error = await failure(answer, output_bytes_max=500)

        assert (error.code, error.fault) == (code, fault)
        assert words in error.message

    async def test_the_body_of_a_failure_is_kept(self) -> None:
        error = await failure(says(b'{"error":"boom"}', status=500))

        assert (error.status, error.body) == (500, b'{"error":"boom"}')

    async def test_a_slow_one_times_out_and_is_hung_up_on(self) -> None:
        async with serve_container(after(asyncio.Event())) as container, running(container, timeout_s=0.5) as engine:
            with pytest.raises(EngineError) as caught:
                await run(engine, job())
            async with asyncio.timeout(5):
                await container.runs[0].ended.wait()

        assert (caught.value.code, caught.value.fault) == ("container_timeout", "host")
        assert caught.value.message == "the container was not done within 0.5 s"

    async def test_one_that_is_away_can_not_be_reached(self) -> None:
        async with serve_container() as container:
            engine = ContainerEngine(id="shout", url=container.url)
            await engine.start()
        with pytest.raises(EngineError) as caught:
            await run(engine, job())
        await engine.close()

        assert (caught.value.code, caught.value.message) == (
            "container_unreachable",
            "the container can't be reached",
        )

    async def test_a_missing_bearer_is_the_hosts_fault(self) -> None:
        async with serve_container(bearer="b-1") as container, running(container) as engine:
            with pytest.raises(EngineError) as caught:
                await run(engine, job())

        assert (caught.value.status, caught.value.fault) == (401, "host")


class TestStream:
    async def test_pieces_are_passed_on_at_once(self) -> None:
        gate = asyncio.Event()
        answer = streams(b"one ", gate, b"two")
        async with serve_container(answer) as container, running(container) as engine:
            stream = aiter(engine.run(EngineRequest("container", "shout", job([1], stream=True))))
            async with asyncio.timeout(5):
                assert await anext(stream) == Frame("one ", 1)
            gate.set()
            rest = [item async for item in stream]

        assert rest == [Frame("two", 0), Frame("", 0, STOPPED), Finish("stop", Usage(0, 1))]
        assert container.runs[0].json == {"source": 1, "destination": 2, "data": [1]}

    async def test_bytes_come_out_as_they_went_in(self) -> None:
        pieces = [bytes(range(256)), "é".encode()[:1], "é".encode()[1:], b"\xff\xfe", b"end\xf0\x9d"]
        async with serve_container(streams(*pieces)) as container, running(container) as engine:
            items = await run(engine, job(stream=True))

        frames = [item for item in items if isinstance(item, Frame)]
        assert bytes_of(frames) == b"".join(pieces)
        assert sum(frame.tokens for frame in frames) == 1

    async def test_an_empty_stream_is_a_run_too(self) -> None:
        async with serve_container(streams()) as container, running(container) as engine:
            items = await run(engine, job(stream=True))

        assert items == [Frame("", 1, STOPPED), Finish("stop", Usage(0, 1))]

    @pytest.mark.parametrize(
        ("answer", "code"),
        [
            (streams(b"one", cut=True), "container_cut"),
            (streams(b"one", length=10), "container_cut"),
            (streams(b"x" * 1000), "container_output_too_large"),
            (says(b"boom", status=500), "container_failed"),
            (redirects, "container_failed"),
        ],
    )
    async def test_what_breaks_never_ends_cleanly(self, answer: Answer, code: str) -> None:
        error = await failure(answer, stream=True, output_bytes_max=500)

        assert (error.code, error.fault) == (code, "host")

    async def test_one_that_falls_silent_times_out(self) -> None:
        error = await failure(streams(b"one", asyncio.Event()), stream=True, timeout_s=0.5)

        assert (error.code, error.fault) == ("container_timeout", "host")

    async def test_a_slow_reader_is_not_the_containers_slowness(self) -> None:
        async with (
            serve_container(streams(b"one", b"two")) as container,
            running(container, timeout_s=0.2) as engine,
        ):
            stream = aiter(engine.run(EngineRequest("container", "shout", job(stream=True))))
            await anext(stream)
            # Longer than the container may take: a real clock is what a socket's far side has.
            await asyncio.sleep(0.3)
            rest = [item async for item in stream]

        assert isinstance(rest[-1], Finish)


class TestPlaces:
    async def test_no_more_runs_at_once_than_allowed(self) -> None:
        gate = asyncio.Event()
        async with serve_container(after(gate)) as container, running(container, concurrency=2) as engine:
            tasks = [asyncio.create_task(run(engine, job(number))) for number in range(5)]
            await container.came(2)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(container.runs) == 2
            gate.set()
            await asyncio.gather(*tasks)

        assert len(container.runs) == 5

    async def test_who_waits_too_long_for_a_place_blames_nobody(self) -> None:
        async with (
            serve_container(after(asyncio.Event())) as container,
            running(container, concurrency=1, timeout_s=0.2) as engine,
        ):
            first = asyncio.create_task(run(engine, job(1)))
            await container.came()
            second = asyncio.create_task(run(engine, job(2)))
            results = await asyncio.gather(first, second, return_exceptions=True)

        codes = [result.code for result in results if isinstance(result, EngineError)]
        assert codes[0] == "container_timeout" and codes[1] in ("container_busy", "container_timeout")

    @pytest.mark.parametrize("stream", [False, True])
    async def test_closing_hangs_up_at_once_and_frees_the_place(self, stream: bool) -> None:
        answer = streams(b"one", asyncio.Event()) if stream else after(asyncio.Event())
        async with serve_container(answer) as container, running(container, concurrency=1) as engine:
            task = asyncio.create_task(run(engine, job(stream=stream)))
            first = await container.came()
            task.cancel()
            async with asyncio.timeout(5):
                await first.ended.wait()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            container.answer = echo
            items = await run(engine, job(7))

        assert items[0] == Frame("7", 1, STOPPED)

    async def test_a_stream_that_is_closed_hangs_up(self) -> None:
        async with serve_container(streams(b"one", asyncio.Event())) as container, running(container) as engine:
            stream = engine.run(EngineRequest("container", "shout", job(stream=True)))
            await anext(aiter(stream))
            await stream.aclose()  # type: ignore[attr-defined]
            async with asyncio.timeout(5):
                await container.runs[0].ended.wait()


class TestModels:
    async def test_the_offer_carries_the_card(self) -> None:
        async with serve_container() as container:
            spec = ContainerSpec(
                id="shout",
                url=container.url,
                description="Says it louder.",
                image="me/shout",
                external=False,
                generates_proofs=True,
                allowed_ips=("10.1.2.3/8",),
                rate_requests=5,
                rate_period_s=10.0,
                accepted_payments={"0x0000000000000000000000000000000000000000": 10**20},
                allowed_addresses=("0xa",),
                allowed_delegate_addresses=("0xb",),
                timeout_s=9.0,
            )
            engine = ContainerEngine.of([spec])
            await engine.start()
            offers = await engine.models()
            await engine.close()

        card = ContainerCard(
            "Says it louder.",
            "me/shout",
            False,
            True,
            ["10.0.0.0/8"],
            9.0,
            5,
            10.0,
            {"0x0000000000000000000000000000000000000000": "100000000000000000000"},
            ["0xa"],
            ["0xb"],
        )
        assert offers == [ModelOffer("shout", ["container"], 10_000_000, container=card)]

    async def test_one_that_is_away_is_withdrawn_until_it_answers(self) -> None:
        port = free_port()
        async with serve_container() as there:
            engine = ContainerEngine.of(
                [ContainerSpec(id="a", url=there.url), ContainerSpec(id="b", url=f"http://127.0.0.1:{port}")]
            )
            await engine.start()
            names = [[offer.name for offer in await engine.models()]]
            async with serve_container(port=port) as back:
                back.resources = None
                names.append([offer.name for offer in await engine.models()])
            names.append([offer.name for offer in await engine.models()])
            await engine.close()

        assert names == [["a"], ["a", "b"], ["a"]]

    async def test_one_that_is_at_work_is_not_asked(self) -> None:
        """A container of one thread says nothing while it works; it is there all the same, and as able as before."""
        gate = asyncio.Event()
        async with serve_container(after(gate)) as container, running(container) as engine:
            assert await engine.resources() == {"shout": RESOURCES}
            task = asyncio.create_task(run(engine, job()))
            await container.came()
            container.resources, container.asked = None, []

            assert [offer.name for offer in await engine.models()] == ["shout"]
            assert container.asked == []
            assert await engine.resources() == {"shout": RESOURCES}
            gate.set()
            await task
            assert await engine.resources() == {}

    async def test_one_that_takes_connections_and_says_nothing_is_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with serve_container() as container, running(container) as engine:
            monkeypatch.setattr(container_http, "PROBE_TIMEOUT_S", 0.05)
            monkeypatch.setattr(container_http, "ABOUT_TIMEOUT_S", 0.05)
            container.silent = True
            offers, resources = await engine.models(), await engine.resources()

        assert (offers, resources) == ([], {})

    async def test_nobody_there_is_said_at_the_start(self) -> None:
        engine = ContainerEngine(id="shout", url=f"http://127.0.0.1:{free_port()}")
        with pytest.raises(EngineError, match=r"no container answers \(shout at http://127.*start it first"):
            await engine.start()
        await engine.close()

    async def test_it_is_not_run_to_be_measured(self) -> None:
        async with serve_container() as container, running(container) as engine:
            offer = (await engine.models())[0]
            assert await measure(engine, offer, Kinds()) is None

        assert container.runs == []


class TestTells:
    async def test_what_it_says_of_itself_is_passed_on_word_for_word(self) -> None:
        async with serve_container() as container, running(container) as engine:
            assert isinstance(engine, ReportsResources)
            assert await engine.resources() == {"shout": RESOURCES}

    @pytest.mark.parametrize("said", [None, b"<html>", b'"' + b"x" * 70_000 + b'"'])
    async def test_what_is_no_good_answer_is_absent(self, said: bytes | None) -> None:
        async with serve_container() as container, running(container) as engine:
            container.resources = said
            assert await engine.resources() == {}

    async def test_a_model_id_is_asked_for_as_it_is(self) -> None:
        model_id = "storage/owner/a b&c=d:x,y?é#%2F+"
        async with serve_container() as container, running(container) as engine:
            container.supports = {model_id: b'{"supported":true}'}
            assert await engine.supports("shout", model_id) == b'{"supported":true}'
            assert await engine.supports("shout", "other") == b'{"supported":false}'
            assert await engine.supports("nobody", "other") == b""
            container.resources = None
            assert await engine.supports("shout", model_id) == b""

        assert container.asked[0] == "/service-resources" and "a+b%26c%3Dd:x,y?%C3%A9%23%252F%2B" in container.asked[1]


class TestOptions:
    def test_what_an_owner_types(self) -> None:
        text = (
            "container,id=shout,url=http://127.0.0.1:3000/,bearer=b=1,description=Loud,external=false,"
            "generates_proofs=true,allowed_ips=10.0.0.0/8+192.168.1.0/24,timeout_s=60,output_bytes_max=1000,concurrency=2"
        )

        engine = make_engine(parse_spec(text), slots=3)

        assert isinstance(engine, ContainerEngine)
        assert engine._containers["shout"].spec == ContainerSpec(
            id="shout",
            url="http://127.0.0.1:3000",
            bearer="b=1",
            description="Loud",
            external=False,
            generates_proofs=True,
            allowed_ips=("10.0.0.0/8", "192.168.1.0/24"),
            timeout_s=60.0,
            output_bytes_max=1000,
            concurrency=2,
        )

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ("", "needs an id: container,id=NAME,url="),
            ("id=a b,url=http://h:1", "without comma and space"),
            ("id=a", "url has to look like http://HOST:PORT"),
            ("id=a,url=::1", "url has to look like"),
            ("id=a,url=ftp://h:1", "url has to look like"),
            ("id=a,url=http://h:99999", "url has to look like"),
            ("id=a,url=http://a..b:1", "url has to look like"),
            ("id=a,url=http://[::1:1", "url has to look like"),
            ("id=a,url=http://u:p@h:1", "url has to look like"),
            ("id=a,url=http://h:1?x=1", "url has to look like"),
            ("id=a,url=http://h:1/service_output", "without /service_output"),
            ("id=a,url=http://h:1,allowed_ips=10.0.0.0/99", "networks like 10.0.0.0/8, joined by +"),
            ("id=a,url=http://h:1,timeout_s=0", "timeout_s has to be above 0"),
            ("id=a,url=http://h:1,timeout_s=nan", "timeout_s has to be above 0"),
            ("id=a,url=http://h:1,output_bytes_max=99999999", "output_bytes_max has to be 1 to"),
            ("id=a,url=http://h:1,concurrency=-1", "concurrency has to be 0"),
            ("id=a,url=http://h:1,external=perhaps", "external='perhaps'"),
            ("id=a,url=http://h:1,bearer=é", "bearer has to be one line"),
        ],
    )
    def test_what_can_not_be_is_explained(self, options: str, words: str) -> None:
        with pytest.raises(EngineError) as caught:
            make_engine(parse_spec(f"container,{options}" if options else "container"), slots=1)

        assert words in caught.value.message

    @pytest.mark.parametrize("id", ["a,b", "a\n", "x" * 257])
    def test_an_id_is_one_word(self, id: str) -> None:
        with pytest.raises(EngineError, match="a container's id has"):
            checked_spec(ContainerSpec(id=id, url="http://h:1"))

    @pytest.mark.parametrize("ids", [[], ["a", "a"]])
    def test_several_have_names_of_their_own(self, ids: list[str]) -> None:
        with pytest.raises(EngineError, match=r"no container was named|the same id"):
            ContainerEngine.of([ContainerSpec(id=id, url="http://h:1") for id in ids])
