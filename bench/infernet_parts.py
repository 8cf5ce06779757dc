"""The processes that `bench_infernet` measures: coordinator, workers, a container, and the reference.

Usage: ``python -m bench.infernet_parts coordinator FOLDER STORED``, and so on; each runs until it is killed, and its
    first line says where it is.
"""

import asyncio
import sys

import msgspec
import uvloop
from aiohttp import web

from bench.free_containers import RESOURCES
from bench.infernet_reference import serve_reference
from comptoir.app import open_core, running, tune_interpreter
from comptoir.dispatch import Core
from comptoir.jobs import JobState, NewJob, insert_jobs
from comptoir.kinds import MILLION, Stage, Terms, encode_stages
from comptoir.kit.ids import new_id
from comptoir.ledger import ANONYMOUS_CALLERS
from comptoir.settings import Settings
from comptoir.worker.engines.container import ContainerEngine
from comptoir.worker.engines.container_spec import ContainerSpec
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker

CONTAINERS = 20
"""Containers on offer everywhere."""

PIECE, PIECES = b"data ", 20
"""A stream of the container."""

UNFINISHED = 100
"""Of the jobs that are stored beforehand, those that are not over."""

MODULE = "bench.infernet_parts"


async def coordinator(folder: str, stored: str = "0") -> None:
    """Serve callers without a key, as Infernet's clients are, who have *stored* jobs already."""
    settings = Settings(
        data=folder,
        port=0,
        requests_per_minute_per_key=100_000_000,
        requests_per_minute_per_ip=100_000_000,
        infernet_requests_per_minute=100_000_000,
        infernet_anonymous="loopback",
        infernet_anonymous_uusd_per_day=10**12,
    )
    async with open_core(settings) as core:
        await store(core, int(stored))
        tune_interpreter()
        async with running(core) as url:
            print(url, flush=True)
            await asyncio.Event().wait()


async def store(core: Core, jobs: int) -> None:
    """Write *jobs* of the caller at 127.0.0.1; all but `UNFINISHED` are over."""
    steps = encode_stages((Stage("c0", 10**9),))
    body, later = b'{"containers":["c0"],"data":{}}', core.common_ms() + 10**9
    for _ in range(0, jobs, 1000):
        some = [
            NewJob(
                new_id(), ANONYMOUS_CALLERS, "infernet", "container", "c0", body, Terms(0, 1, 0, 10**9), True,
                later, later, core.node_id,
                None, "127.0.0.1", steps,
            )
            for _ in range(1000)
        ]  # fmt: skip
        await core.db.run(lambda tx, some=some: insert_jobs(tx, some, []))  # type: ignore[misc]
    sql = f"UPDATE jobs SET state = ? WHERE id NOT IN (SELECT id FROM jobs ORDER BY id DESC LIMIT {UNFINISHED})"
    await core.db.run(lambda tx: tx.execute(sql, [JobState.COMPLETED]))


async def worker(url: str, folder: str, target: str, options: str) -> None:
    """Serve the engine *target*."""
    config = WorkerConfig(
        url=url,
        engines=[EngineSpec(target, msgspec.json.decode(options))],
        slots=512,
        prices={"run": 1_000 * MILLION},
        measure=False,
        state_dir=folder,
        drain_s=1.0,
    )
    await run_worker(config, stop=asyncio.Event(), on_event=lambda event: None)


def real_containers(*, url: str, slots: int = 512) -> ContainerEngine:
    """Make the real engine with all containers at *url*; the registry calls it."""
    specs = [ContainerSpec(id=f"c{number}", url=url) for number in range(CONTAINERS)]
    return ContainerEngine.of(specs, slots=slots)


async def container() -> None:
    """Serve a container that costs as little as aiohttp can."""

    async def output(request: web.Request) -> web.StreamResponse:
        asked = msgspec.json.decode(await request.read())
        if asked["destination"] != 2:
            return web.Response(body=b'{"said":"hello"}', content_type="application/json")
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await answer.prepare(request)
        for _ in range(PIECES):
            await answer.write(PIECE)
        await answer.write_eof()
        return answer

    async def about(request: web.Request) -> web.Response:
        return web.Response(body=RESOURCES, content_type="application/json")

    app = web.Application()
    app.router.add_post("/service_output", output)
    app.router.add_get("/service-resources", about)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


ROLES = {"coordinator": coordinator, "worker": worker, "container": container}


def main(role: str, *args: str) -> None:
    """Run one of the processes."""
    if role == "reference":
        # On asyncio's own loop, which is what hypercorn takes unless told otherwise.
        asyncio.run(serve_reference(*args))
    else:
        uvloop.run(ROLES[role](*args))  # type: ignore[operator]


if __name__ == "__main__":
    main(*sys.argv[1:])
