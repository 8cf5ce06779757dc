"""Managed containers: started, watched and stopped through the Engine API, over a real socket and real ports."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from comptoir.kit.clock import FakeClock
from comptoir.worker.engines import container_api
from comptoir.worker.engines.container_api import ContainerApiError, find_socket, split_image
from comptoir.worker.engines.container_runtime import (
    ID_LABEL,
    OWNER_LABEL,
    SILENT_LOOKS_MAX,
    TRY_AGAIN_S,
    Containers,
    create_body,
    owner_of,
)
from comptoir.worker.engines.container_spec import ContainerSpec, Managed
from tests.post import free_port
from tests.worker.engines.engine_api import FakeEngine, Image, serve_engine

IMAGE = "example/image:1"
SECRET = "s3cret-of-the-registry"


def spec_of(name: str = "one", *, image: str = IMAGE, **managed: Any) -> ContainerSpec:
    """Return a managed container on a free port."""
    port = managed.pop("port", None) or free_port()
    return ContainerSpec(id=name, url=f"http://127.0.0.1:{port}", managed=Managed(image=image, port=port, **managed))


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "engine.sock"


@pytest.fixture
async def engine(socket: Path) -> AsyncIterator[FakeEngine]:
    async with serve_engine(socket) as running:
        running.registry[IMAGE] = Image()
        yield running


@pytest.fixture
async def kept(socket: Path, clock: FakeClock) -> AsyncIterator[Any]:
    """Give what makes `Containers` at the fake engine, closed at the end."""
    made: list[Containers] = []

    def make(*specs: ContainerSpec, owner: str = "me", ready_s: float = 5.0, grace_s: float = 5.0) -> Containers:
        made.append(Containers(specs, owner=owner, socket=str(socket), clock=clock, ready_s=ready_s, grace_s=grace_s))
        return made[-1]

    yield make
    await asyncio.gather(*(one.close() for one in made))


EVERYTHING = Managed(
    image=IMAGE,
    command="--bind=0.0.0.0:3000 --name 'two words'",
    env={"A": "1", "B": "x=y"},
    port=4001,
    gpu=True,
    volumes=("/models:/models:ro", "cache:/cache", "/scratch"),
)


class TestCreateBody:
    def test_every_option_is_in_it(self) -> None:
        assert create_body(EVERYTHING) == {
            "Image": IMAGE,
            "Cmd": ["--bind=0.0.0.0:3000", "--name", "two words"],
            "Env": ["A=1", "B=x=y"],
            "ExposedPorts": {"3000/tcp": {}},
            "Volumes": {"/scratch": {}},
            "HostConfig": {
                "PortBindings": {"3000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "4001"}]},
                "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5},
                "Binds": ["/models:/models:ro", "cache:/cache"],
                "DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}],
            },
        }

    def test_what_is_not_asked_for_is_left_to_the_image(self) -> None:
        body = create_body(Managed(image=IMAGE, port=1))

        assert not {"Cmd", "Volumes"} & set(body) and "DeviceRequests" not in body["HostConfig"]


class TestSplitImage:
    @pytest.mark.parametrize(
        ("image", "parts"),
        [
            ("a/b", ("a/b", "latest")),
            ("a/b:2", ("a/b", "2")),
            ("registry.example:5000/b", ("registry.example:5000/b", "latest")),
            ("registry.example:5000/b:2", ("registry.example:5000/b", "2")),
            ("b@sha256:abc", ("b", "sha256:abc")),
        ],
    )
    def test_a_tag_is_what_follows_the_last_name(self, image: str, parts: tuple[str, str]) -> None:
        assert split_image(image) == parts


class TestFindSocket:
    def test_docker_host_is_taken(self) -> None:
        assert find_socket({"DOCKER_HOST": "unix:///run/x.sock"}) == "/run/x.sock"

    def test_an_engine_on_another_machine_is_refused_with_the_reason(self) -> None:
        with pytest.raises(ContainerApiError, match="only unix://"):
            find_socket({"DOCKER_HOST": "tcp://10.0.0.1:2375"})

    async def test_the_users_podman_is_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(container_api, "PLACES", ("/nowhere/docker.sock", "{runtime}/podman/podman.sock"))
        (tmp_path / "podman").mkdir()
        async with serve_engine(tmp_path / "podman" / "podman.sock"):
            assert find_socket({"XDG_RUNTIME_DIR": str(tmp_path)}) == str(tmp_path / "podman" / "podman.sock")

    def test_none_says_where_it_was_looked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(container_api, "PLACES", ("/nowhere/docker.sock",))

        with pytest.raises(ContainerApiError, match=r"neither Docker nor Podman .*/nowhere/docker\.sock"):
            find_socket({})


class TestStart:
    async def test_it_pulls_creates_starts_and_is_served_once_it_answers(self, engine: FakeEngine, kept: Any) -> None:
        spec = spec_of()

        assert await kept(spec).start() == [spec]

        made = engine.named("comptoir-one")
        assert made.status == "running" and made.inside is not None
        assert made.inside.asked, "it was asked how it is before it was offered"
        assert made.body["Labels"][OWNER_LABEL] == "me" and made.body["Labels"][ID_LABEL] == "one"

    async def test_credentials_go_to_the_registry_and_nowhere_else(
        self, engine: FakeEngine, kept: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        engine.registry[IMAGE] = Image(credentials=("ada", SECRET))
        spec = spec_of(registry_user="ada", registry_password=SECRET)

        assert await kept(spec).start() == [spec]

        assert engine.credentials == [{"username": "ada", "password": SECRET}]
        assert SECRET not in repr(spec) + caplog.text + str(engine.named("comptoir-one").body)

    async def test_an_engine_that_repeats_the_password_is_not_repeated(
        self, engine: FakeEngine, kept: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine.registry[IMAGE] = Image(pull="tells")
        containers = kept(spec_of(registry_user="ada", registry_password=SECRET))

        await containers.start()

        assert "login ada:*** failed" in containers.gone["one"]
        assert SECRET not in caplog.text

    async def test_one_of_a_url_needs_no_engine(self, kept: Any) -> None:
        spec = ContainerSpec(id="far", url="https://far.example")

        assert await kept(spec).start() == [spec]

    async def test_without_an_engine_the_managed_ones_are_named_and_the_others_served(
        self, kept: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        far = ContainerSpec(id="far", url="https://far.example")
        containers = kept(spec_of("one"), far)

        assert await containers.start() == [far]

        assert "can't be asked" in containers.gone["one"]
        assert "container one is not offered" in caplog.text

    async def test_an_engine_that_comes_later_is_found(self, kept: Any, socket: Path) -> None:
        spec = spec_of()
        containers = kept(spec)
        await containers.start()
        async with serve_engine(socket) as engine:
            engine.registry[IMAGE] = Image()
            await containers.look()

            assert containers.serving == [spec]
            await containers.close()


FAILURES = [
    # what is wrong, how the engine is, what is said
    ("no such image", {}, r"image example/image:1 can't be pulled: pull access denied"),
    ("a pull that fails midway", {"pull": "fails"}, "can't be pulled: unauthorized"),
    ("a pull that breaks off", {"pull": "cut"}, "can't be pulled: .*can't be asked"),
    ("wrong credentials", {"credentials": ("ada", "x")}, "can't be pulled: pull access denied"),
    ("a program that ends", {"does": "exit"}, r"it has ended \(exit code 3\)"),
    ("a program that never listens", {"does": "sleep"}, "did not answer within"),
]


class TestFailures:
    @pytest.mark.parametrize(("what", "image", "words"), FAILURES)
    async def test_one_that_fails_says_why_and_stops_no_other(
        self, engine: FakeEngine, kept: Any, what: str, image: dict[str, Any], words: str
    ) -> None:
        if image:
            engine.registry["example/bad:1"] = Image(**image)
        bad, good = spec_of("bad", image="example/bad:1" if image else IMAGE), spec_of("good", image="example/good:1")
        engine.registry["example/good:1"] = Image()
        if not image:
            del engine.registry[IMAGE]
        containers = kept(bad, good, ready_s=0.6)

        assert await containers.start() == [good]

        assert re.search(words, containers.gone["bad"]), what

    async def test_a_port_in_use_is_named_and_nothing_is_left(self, engine: FakeEngine, kept: Any) -> None:
        first = spec_of("first")
        second = spec_of("second", port=first.managed.port if first.managed else 0)
        await kept(first, owner="other").start()
        containers = kept(second)

        assert await containers.start() == []

        assert containers.gone["second"].startswith(f"port {first.url.rpartition(':')[2]} of this machine is in use")
        assert [made.name for made in engine.containers.values()] == ["comptoir-first"]

    async def test_a_name_that_is_somebody_elses_is_not_touched(self, engine: FakeEngine, kept: Any) -> None:
        theirs = kept(spec_of(), owner="them")
        await theirs.start()
        ours = kept(spec_of())

        assert await ours.start() == []

        assert "not ours" in ours.gone["one"]
        await ours.close()
        assert engine.named("comptoir-one").status == "running"

    @pytest.mark.parametrize(("podman", "words"), [(False, "no GPU support"), (True, "Podman gives no GPU")])
    async def test_no_gpu_is_said(self, engine: FakeEngine, kept: Any, podman: bool, words: str) -> None:
        """Podman takes the request and forgets it; what then ran without a GPU would be a hundred times too slow."""
        engine.gpus, engine.podman = False, podman
        containers = kept(spec_of(gpu=True))

        assert await containers.start() == []

        assert words in containers.gone["one"]
        assert engine.containers == {}

    async def test_an_image_that_is_here_does_when_the_registry_is_away(self, engine: FakeEngine, kept: Any) -> None:
        engine.images[IMAGE] = engine.registry.pop(IMAGE)
        spec = spec_of()

        assert await kept(spec).start() == [spec]

    async def test_one_that_can_not_be_started_is_tried_again(
        self, engine: FakeEngine, kept: Any, clock: FakeClock
    ) -> None:
        image, spec = engine.registry.pop(IMAGE), spec_of()
        containers = kept(spec)
        await containers.start()
        engine.registry[IMAGE] = image

        await containers.look()
        assert containers.serving == []
        clock.advance(seconds=TRY_AGAIN_S)
        await containers.look()

        assert containers.serving == [spec]

    async def test_a_slow_one_is_offered_later(self, engine: FakeEngine, kept: Any) -> None:
        """A large model loads for minutes; the others are not kept waiting for it."""
        engine.registry["example/slow:1"] = Image(does="sleep")
        slow, quick = spec_of("slow", image="example/slow:1"), spec_of("quick")
        containers = kept(slow, quick, ready_s=60.0, grace_s=0.2)

        async with asyncio.timeout(10):
            assert await containers.start() == [quick]


class TestWatch:
    async def test_one_that_crashes_is_withdrawn_until_it_is_back(self, engine: FakeEngine, kept: Any) -> None:
        spec = spec_of()
        containers = kept(spec)
        await containers.start()

        await engine.crash("comptoir-one", code=7)
        await containers.look()
        assert containers.serving == []
        assert containers.gone["one"] == "it failed (exit code 7) and is being started again"

        await engine.revive("comptoir-one")
        await containers.look()
        assert containers.serving == [spec]

    async def test_one_that_ended_for_good_is_started_again_after_a_while(
        self, engine: FakeEngine, kept: Any, clock: FakeClock
    ) -> None:
        """After the engine was upgraded, say: it starts nothing again that did not fail."""
        spec = spec_of()
        containers = kept(spec)
        await containers.start()

        await engine.crash("comptoir-one", code=0)
        await containers.look()
        assert containers.gone["one"].startswith("it has ended (exit code 0)")
        clock.advance(seconds=TRY_AGAIN_S)
        await containers.look()
        await containers.look()

        assert containers.serving == [spec]

    async def test_one_that_was_removed_is_made_again(self, engine: FakeEngine, kept: Any, clock: FakeClock) -> None:
        spec = spec_of()
        containers = kept(spec)
        await containers.start()
        await engine.crash("comptoir-one", code=0)
        engine.containers.clear()

        await containers.look()
        assert containers.gone["one"] == "it was removed, and not by us"
        clock.advance(seconds=TRY_AGAIN_S)
        await containers.look()

        assert containers.serving == [spec]

    async def test_a_busy_one_stays(self, engine: FakeEngine, kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run of minutes in a server with one hand leaves nobody to say how it is."""
        monkeypatch.setattr("comptoir.worker.engines.container_runtime.HEALTH_S", 0.05)
        spec = spec_of()
        containers = kept(spec)
        await containers.start()
        inside = engine.named("comptoir-one").inside
        assert inside is not None
        inside.silent = True

        for _ in range(SILENT_LOOKS_MAX + 1):
            await containers.look()

        assert containers.serving == [spec]

    async def test_an_engine_that_is_away_takes_no_container_with_it(self, engine: FakeEngine, kept: Any) -> None:
        """Podman's API ends when nobody asks it, Docker's for an upgrade."""
        spec = spec_of()
        containers = kept(spec)
        await containers.start()
        engine.away = True

        await containers.look()
        assert containers.serving == [spec]
        await engine.crash("comptoir-one")
        for _ in range(SILENT_LOOKS_MAX):
            await containers.look()

        assert containers.serving == []
        engine.away = False

    async def test_one_whose_program_is_gone_is_withdrawn_though_the_container_runs(
        self, engine: FakeEngine, kept: Any
    ) -> None:
        containers = kept(spec_of())
        await containers.start()
        await engine.named("comptoir-one").ends.aclose()

        for _ in range(SILENT_LOOKS_MAX):
            await containers.look()

        assert containers.gone["one"] == "it runs, and nothing answers on its port"


class TestAdoption:
    async def test_what_a_killed_worker_left_goes_on_untouched(self, engine: FakeEngine, kept: Any) -> None:
        spec = spec_of()
        await kept(spec).start()
        before = engine.named("comptoir-one")

        assert await kept(spec).start() == [spec]

        assert engine.named("comptoir-one") is before and before.stops == []

    async def test_it_goes_on_too_if_the_engine_is_away_at_first(self, engine: FakeEngine, kept: Any) -> None:
        spec = spec_of()
        await kept(spec).start()
        before = engine.named("comptoir-one")
        engine.away = True
        containers = kept(spec)
        assert await containers.start() == []

        engine.away = False
        await containers.look()

        assert containers.serving == [spec] and engine.named("comptoir-one") is before

    async def test_one_that_changed_is_replaced(self, engine: FakeEngine, kept: Any) -> None:
        spec = spec_of()
        await kept(spec).start()
        before = engine.named("comptoir-one")
        changed = spec_of(port=spec.managed.port if spec.managed else 0, env={"A": "2"})

        assert await kept(changed).start() == [changed]

        assert before.stops == ["60"]
        assert engine.named("comptoir-one").body["Env"] == ["A=2"]

    async def test_a_newer_image_replaces_it(self, engine: FakeEngine, kept: Any) -> None:
        spec = spec_of()
        await kept(spec).start()
        before = engine.named("comptoir-one")
        engine.registry[IMAGE].version = 2

        await kept(spec).start()

        assert engine.named("comptoir-one").image_id != before.image_id

    async def test_one_no_longer_wanted_is_removed_and_nobody_elses(self, engine: FakeEngine, kept: Any) -> None:
        await kept(spec_of("old")).start()
        await kept(spec_of("theirs"), owner="them").start()

        await kept(spec_of("new")).start()

        assert {made.name for made in engine.containers.values()} == {"comptoir-new", "comptoir-theirs"}

    def test_a_file_has_one_owner_wherever_it_is_named_from(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)

        assert owner_of(Path("config.json")) == owner_of(tmp_path / "config.json") != owner_of(tmp_path / "other.json")


class TestClose:
    async def test_all_of_ours_are_stopped_with_time_to_end_and_removed(self, engine: FakeEngine, kept: Any) -> None:
        containers = kept(spec_of("one"), spec_of("two"))
        await containers.start()
        before = list(engine.containers.values())

        await containers.close()
        await containers.close()

        assert [made.stops for made in before] == [["60"], ["60"]]
        assert engine.containers == {} and containers.serving == []

    async def test_a_start_that_is_broken_off_leaves_nothing(self, engine: FakeEngine, kept: Any) -> None:
        engine.registry[IMAGE].does = "sleep"
        starting = asyncio.create_task(kept(spec_of(), ready_s=60.0).start())
        async with asyncio.timeout(5):
            while not any(made.status == "running" for made in engine.containers.values()):
                await asyncio.sleep(0.01)

        starting.cancel()
        await asyncio.wait((starting,))

        assert starting.cancelled() and engine.containers == {}
