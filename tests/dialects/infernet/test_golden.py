"""The reference's examples: each asked of a node as it stands there, and answered in its very shape, or word for
word."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from comptoir.dialects.infernet.routes import PUBLISHED
from tests.dialects.infernet.shop import Node, Said, open_node
from tests.worker.engines.container_stand_in import Answer, Run, appends, says, streams

GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = {path.stem: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json"))}
STREAM = (GOLDEN / "07_post_api_jobs_stream.txt").read_bytes()
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
UUID_LINE_BYTES = 37

MODEL_SUPPORT = EXAMPLES["04_get_resources_model_id"]["response"]


def shape(value: Any) -> Any:
    """Return what must agree: keys in order, JSON types, what is a UUID, words that programs look at."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    if isinstance(value, str):
        return "uuid" if UUID.fullmatch(value) else "text"
    return type(value).__name__


async def chat(run: Run) -> Any:
    """Stream if asked to, else say who one is."""
    pieces = STREAM[UUID_LINE_BYTES:].splitlines(keepends=True)
    return await (streams(*pieces) if run.json["destination"] == 2 else appends("summarize"))(run)


ANSWERS: dict[str, Answer] = {
    "classify": appends("classify"),
    "summarize": chat,
    "fails": says(b"The error message from the container.", status=500, content_type="text/plain"),
}


async def play(node: Node) -> dict[str, Said]:
    """Ask every example of a node, in order; jobs are waited for."""
    said: dict[str, Said] = {}
    for name, example in EXAMPLES.items():
        if "{failed}" in example["path"]:
            example = example | {"path": example["path"].replace("{failed}", await node.job("fails"))}
            await node.result(example["path"].partition("id=")[2])
        if "{job}" in example["path"]:
            job = said["05_post_api_jobs"].json["id"]
            await node.result(job)
            example = example | {"path": example["path"].replace("{job}", job)}
        said[name] = await node.ask(example["method"], example["path"], example.get("request"))
    return said


class TestExamples:
    @pytest.mark.parametrize("prefix", ["", "/infernet"])
    async def test_each_is_answered_as_published(self, tmp_path: Path, prefix: str) -> None:
        async with open_node(tmp_path, answers=ANSWERS, prefix=prefix) as node:
            said = await play(node)

            for name, example in EXAMPLES.items():
                assert said[name].status == example["status"], (name, said[name].body)
                assert said[name].headers["content-type"] == "application/json"
            for name in ("05_post_api_jobs", "08_get_api_jobs_id", "12_failed_job"):
                assert shape(said[name].json) == shape(EXAMPLES[name]["response"])
            assert said["08_get_api_jobs_id"].json[0] | {"id": 0} == EXAMPLES["08_get_api_jobs_id"]["response"][0] | {
                "id": 0
            }
            assert said["12_failed_job"].json[0]["result"] == EXAMPLES["12_failed_job"]["response"][0]["result"]
            assert said["11_put_api_status_400"].json == EXAMPLES["11_put_api_status_400"]["response"]
            assert said["10_put_api_status"].json is None
            assert shape(said["02_get_info"].json["containers"][0]) == shape(
                EXAMPLES["02_get_info"]["response"]["containers"][0]
            )
            assert set(said["02_get_info"].json) == set(EXAMPLES["02_get_info"]["response"])
            # At the root the word is the same, beside what other APIs have there.
            assert said["01_get_health"].json["status"] == "healthy"

    async def test_the_batch_is_answered_in_order_word_for_word(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers=ANSWERS) as node:
            example = EXAMPLES["06_post_api_jobs_batch"]
            said = await node.ask("POST", "/api/jobs/batch", example["request"])

            assert shape(said.json) == shape(example["response"])
            assert said.json[2] == example["response"][2]

    async def test_the_stream_is_the_id_and_then_the_containers_words(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers=ANSWERS) as node:
            said = await node.ask("POST", "/api/jobs/stream", {"containers": ["summarize"], "data": {}})

            assert UUID.fullmatch(said.body[: UUID_LINE_BYTES - 1].decode())
            assert said.body[UUID_LINE_BYTES - 1 :] == STREAM[UUID_LINE_BYTES - 1 :]

    async def test_resources_are_the_containers_own(self, tmp_path: Path) -> None:
        published = EXAMPLES["03_get_resources"]["response"]
        resources = {name: json.dumps(one).encode() for name, one in published.items()}
        async with open_node(tmp_path, answers=ANSWERS, resources=resources) as node:
            await node.until("/resources", published)

    async def test_model_support_is_the_containers_own(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers=ANSWERS) as node:
            example = EXAMPLES["04_get_resources_model_id"]
            model_id = example["path"].partition("model_id=")[2]
            for name, body in MODEL_SUPPORT.items():
                node.containers[name].supports = {model_id: json.dumps(body).encode()}
            await node.until(example["path"], MODEL_SUPPORT | {"fails": {"supported": False}})


def test_every_published_endpoint_has_an_example() -> None:
    asked = {(one["method"], one["path"].partition("?")[0]) for one in EXAMPLES.values()} | {
        ("POST", "/api/jobs/stream")
    }

    assert asked == {(endpoint.method, endpoint.path) for endpoint in PUBLISHED}
    assert len(PUBLISHED) == 8


async def test_the_list_is_of_bare_ids(tmp_path: Path) -> None:
    async with open_node(tmp_path, answers=ANSWERS) as node:
        job = await node.job("classify")
        await asyncio.wait_for(node.result(job), 10)
        assert shape((await node.ask("GET", "/api/jobs")).json) == shape(EXAMPLES["09_get_api_jobs"]["response"])
