"""What journeys of films and of speech have in common: a buyer with media, and a host that can be killed."""

import asyncio
import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import aiohttp
import msgspec

from comptoir.kinds.files import FileExtra
from comptoir.receipts import Verdict, read_registry, verify
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig
from tests.chaos.worker import main as work
from tests.journeys.forked import Forked
from tests.post import Post

E = TypeVar("E", bound=FileExtra)
S = TypeVar("S")


class MediaBuyer(Generic[E]):
    """Somebody with a key, who has one kind of work done on *media*, by name.

    Args:
        fields: of each order, unless it says otherwise.
        extra: what stands beside the text of the kind's frames.
    """

    def __init__(
        self,
        post: Post,
        session: aiohttp.ClientSession,
        media: Callable[[str], bytes],
        *,
        kind: str,
        fields: Mapping[str, Any],
        extra: type[E],
    ) -> None:
        self.post, self.session, self._media = post, session, media
        self._kind, self._fields, self._extra = kind, fields, extra
        self.headers = {"authorization": f"Bearer {post.buyer_key}"}

    async def order(self, name: str, *, model: str, status: int = 201, **fields: Any) -> Any:
        """Bring a file up and order what *fields* say of it."""
        url = f"{self.post.url}/house/files?name={name}"
        async with self.session.post(url, data=io.BytesIO(self._media(name)), headers=self.headers) as answer:
            assert answer.status == 201, await answer.text()
            file = (await answer.json())["id"]
        body = {"inputs": [{"file": file}]} | dict(self._fields) | fields
        order = {"kind": self._kind, "model": model, "body": body}
        async with self.session.post(f"{self.post.url}/house/jobs", json=order, headers=self.headers) as answer:
            said = await answer.json()
            assert answer.status == status, said
            return said

    async def follow(self, job_id: str) -> tuple[list[E], Any]:
        """Follow a job to its end; return what its frames said beside their text, and how it ended."""
        url = f"{self.post.url}/house/jobs/{job_id}/frames"
        async with asyncio.timeout(60), self.session.get(url, headers=self.headers) as answer:
            text = (await answer.read()).decode()
        said = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
        extras = [json.dumps(each.get("extra", {})) for each in said[:-1]]
        return [msgspec.json.decode(each, type=self._extra) for each in extras], said[-1]

    async def verified(self, job_id: str) -> Verdict:
        """Verify a job's receipt with the published keys."""
        receipts = self.post.core.receipts
        envelope = await receipts.envelope_of(bytes.fromhex(job_id[4:]))
        return verify(envelope, read_registry(await receipts.registry()))


def result_in(frames: list[E], shape: type[S]) -> S:
    """Return the result in the last frame."""
    result = frames[-1].result
    assert isinstance(result, msgspec.Raw), frames
    return msgspec.json.decode(result, type=shape)


@contextlib.contextmanager
def host_process(post: Post, folder: Path, engine: EngineSpec, prices: Mapping[str, int]) -> Iterator[Forked]:
    """Run a host of its own, to be killed."""
    config = WorkerConfig(
        url=post.url,
        engines=[engine],
        slots=1,
        prices=dict(prices),
        measure=False,
        state_dir=str(folder / "mortal"),
    )
    path = folder / "mortal.json"
    path.write_bytes(msgspec.json.encode(config))
    process = Forked(work, str(path), log=folder / "mortal.log")
    try:
        yield process
    finally:
        process.kill()
