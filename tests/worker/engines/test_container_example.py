"""The container in ``examples/`` is five lines, and it works as its README says."""

import ast
import asyncio
import os
import re
import sys
from pathlib import Path

import msgspec
import pytest

from comptoir.link import Frame
from comptoir.worker.engines.base import EngineError, EngineRequest
from comptoir.worker.engines.container import ContainerEngine
from comptoir.worker.engines.registry import make_engine, parse_spec
from tests.worker.engines.test_container import free_port

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "container"


class TestShout:
    def test_it_is_five_lines(self) -> None:
        tree = ast.parse((FOLDER / "shout.py").read_text())
        statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]

        # Without its docstring and its imports.
        assert len([one for one in statements if not isinstance(one, ast.Import | ast.ImportFrom)]) - 1 == 5

    async def test_it_says_it_louder(self) -> None:
        port = free_port()
        env = {**os.environ, "PORT": str(port)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(FOLDER / "shout.py"), env=env, stdout=asyncio.subprocess.DEVNULL
        )
        engine = ContainerEngine(id="shout", url=f"http://127.0.0.1:{port}")
        try:
            async with asyncio.timeout(20):
                while True:
                    try:
                        await engine.start()
                        break
                    except EngineError:
                        await engine.close()
                        await asyncio.sleep(0.05)
            body = msgspec.json.encode({"containers": ["shout"], "data": {"text": "hello"}})
            items = [item async for item in engine.run(EngineRequest("container", "shout", body))]
        finally:
            await engine.close()
            process.terminate()
            await process.wait()

        assert isinstance(items[0], Frame) and msgspec.json.decode(items[0].text) == {"text": "HELLO"}


class TestReadme:
    @pytest.mark.parametrize("page", ["examples/container/README.md", "docs/adding/an-engine.md", "README.md"])
    def test_what_it_types_is_an_engine(self, page: str) -> None:
        text = (FOLDER.parents[1] / page).read_text()

        typed = re.findall(r"\bcontainer,id=[^\s`…]+", text)

        assert typed
        assert all(isinstance(make_engine(parse_spec(one), slots=1), ContainerEngine) for one in typed)
