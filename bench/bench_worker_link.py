"""Frames per second and CPU per frame through a worker's loop and uplink, with a trivial engine.

The coordinator is a sink in a process of its own: it decodes and acknowledges every batch, no more. Beside it stands
the floor: the same frames hashed and encoded in a bare loop, which no worker can beat.

Usage: ``PYTHONPATH=src:. python -m bench.bench_worker_link [rounds]``
"""

import asyncio
import contextlib
import multiprocessing
import multiprocessing.connection
import statistics
import sys
import time

from aiohttp import web

from bench.trivial_engine import TrivialEngine
from comptoir.kit.signing import SigningKey
from comptoir.link import (
    LINK_VERSION,
    Acks,
    Done,
    Frame,
    Frames,
    Have,
    Hello,
    Job,
    Settled,
    Welcome,
    decode_from_worker,
    encode,
    hash_after,
    hash_start,
)
from comptoir.worker.addresses import Addresses
from comptoir.worker.leases import LeaseTable
from comptoir.worker.loop import JobRunner
from comptoir.worker.uplink import Uplink

TOTAL_FRAMES = 200_000
FAR_FUTURE_MS = 4_000_000_000_000


async def serve_sink(ready: "multiprocessing.connection.Connection[float, object]", streams: int, tokens: int) -> None:
    """Give *streams* jobs on the first connection, say over *ready* when all are done."""
    finished = asyncio.Event()

    async def link(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=64 * 1024 * 1024)
        await socket.prepare(request)
        done = 0
        async for message in socket:
            replies: list[object] = []
            have = []
            for one in decode_from_worker(message.data):
                if isinstance(one, Frames):
                    have.append(Have(one.lease, one.seq + len(one.items)))
                elif isinstance(one, Done):
                    done += 1
                    replies.append(Settled(one.lease, "job", "done", 0, one.end_seq, 0))
                elif isinstance(one, Hello):
                    replies.append(Welcome(LINK_VERSION, "host_" + "00" * 16, [], 256, 60.0))
                    replies += [
                        Job(
                            bytes([n]) * 16,
                            bytes([n]) * 16,
                            "chat",
                            "trivial",
                            b'{"max_tokens":%d}' % tokens,
                            FAR_FUTURE_MS,
                        )
                        for n in range(streams)
                    ]
            if have:
                replies.append(Acks(have))
            if replies:
                await socket.send_bytes(encode(replies))  # type: ignore[arg-type]
            if done == streams:
                finished.set()
        return socket

    app = web.Application()
    app.router.add_get("/link", link)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ready.send(runner.addresses[0][1])
    await finished.wait()
    ready.send(time.monotonic())
    await asyncio.sleep(0.3)
    await runner.cleanup()


def sink(ready: "multiprocessing.connection.Connection[float, object]", streams: int, tokens: int) -> None:
    asyncio.run(serve_sink(ready, streams, tokens))


async def work(
    port: int, streams: int, finished: "multiprocessing.connection.Connection[object, float]"
) -> tuple[float, float]:
    """Run a worker against the sink; return wall and CPU seconds from the first frame to the last `Done`."""
    table = LeaseTable()
    runner = JobRunner(table=table, signing_key=SigningKey.generate(), slots=streams)
    runner.offer({"trivial": TrivialEngine()})
    addresses = Addresses([f"http://127.0.0.1:{port}"])
    uplink = Uplink(addresses=addresses, key="hk", software="bench", table=table, jobs=runner)
    uplink.offer(await TrivialEngine().models(), streams)
    link = asyncio.create_task(uplink.run())
    while not uplink.connected:
        await asyncio.sleep(0)
    started, cpu = time.monotonic(), time.process_time()
    while not finished.poll():
        await asyncio.sleep(0.01)
    wall = finished.recv() - started
    cpu = time.process_time() - cpu
    await uplink.close()
    with contextlib.suppress(asyncio.CancelledError):
        await link
    return wall, cpu


def once(streams: int) -> tuple[float, float]:
    """Return frames per second and worker CPU microseconds a frame for one run."""
    tokens = TOTAL_FRAMES // streams
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=sink, args=(theirs, streams, tokens))
    process.start()
    wall, cpu = asyncio.run(work(int(ours.recv()), streams, ours))
    process.join(10)
    return tokens * streams / wall, cpu / (tokens * streams) * 1e6


def floor() -> float:
    """Return the CPU microseconds of making, hashing and encoding one frame, nothing else."""
    started = time.process_time()
    chain = hash_start(b"0" * 16)
    batch: list[Frame] = []
    for _ in range(TOTAL_FRAMES):
        frame = Frame(" tok")
        chain = hash_after(chain, frame)
        batch.append(frame)
        if len(batch) == 64:
            encode([Frames(b"0" * 16, 0, batch)])
            batch = []
    return (time.process_time() - started) / TOTAL_FRAMES * 1e6


def main(rounds: int) -> None:
    print(f"{'streams':>8} {'frames/s':>10} {'CPU us/frame':>13} {'floor us':>9}")
    for streams in (1, 8, 64):
        runs = [(*once(streams), floor()) for _ in range(rounds)]
        rate, cpu, least = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{streams:>8} {rate:>10,.0f} {cpu:>13.2f} {least:>9.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
