"""docs/clients.md is true: its lines are run as they stand, its versions are those that the locks name."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.clients.conftest import DriverOf, marked
from tests.clients.driven import CLIENTS, ROOT, Client, node, paths_of
from tests.clients.hostile import ANSWER, installed
from tests.dialects.openai.shop import Shop

PAGE = (ROOT / "docs" / "clients.md").read_text()
SECTION = re.compile(r"^## (.*)\n((?:(?!^## ).*\n)+)", re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| \[(.*?)\]\(.*?\) \| (\S+) \|.*\| (\w+) \|$", re.MULTILINE)

LOCKS = {
    "node": "tests/node/package-lock.json",
    "programs": "tests/clients/node/package-lock.json",
    "infernet": "requirements/infernet-client.txt",
}

SAYS = {
    "Infernet client": "1.4.0",
    "Codex": "nothing is served at /v1/responses; the nearest path that is served is /v1/chat/completions",
}
"""What lines print that ask something else."""

SERVERS = ("LiteLLM proxy", "Open WebUI")
"""Their lines are run by test_programs.py, until they are asked something."""

RUN_S = 60
"""A bound against hanging."""

INFERNET = ROOT / "tests" / "infernet_client" / "driver.py"


def sections() -> dict[str, tuple[str, str]]:
    """Return the language and the lines of each client."""
    return {name: BLOCK.findall(text)[0] for name, text in SECTION.findall(PAGE)}


def locked(client: Client) -> str:
    """Return the version of *client* that its lock names."""
    lock = (ROOT / LOCKS.get(client.environment, f"requirements/clients/{client.environment}.txt")).read_text()
    if client.environment in ("node", "programs"):
        version: str = json.loads(lock)["packages"][f"node_modules/{client.package}"]["version"]
        return version.removesuffix("-linux-x64")
    (found,) = re.findall(rf"^{client.package}(?:\[.*\])?==(\S+)", lock, re.MULTILINE)
    return str(found)


class TestTable:
    def test_it_names_the_clients_that_are_driven(self) -> None:
        assert [name for name, _, _ in ROW.findall(PAGE)] == [client.name for client in CLIENTS] == list(sections())

    def test_their_versions_are_the_locked_ones(self) -> None:
        told = {name: version for name, version, _ in ROW.findall(PAGE)}

        assert told == {client.name: locked(client) if client.package else "any" for client in CLIENTS}

    def test_it_says_what_make_test_drives(self) -> None:
        told = {name: often for name, _, often in ROW.findall(PAGE)}

        assert told == {client.name: "yes" if client.often else "no" for client in CLIENTS}


async def run(*command: str, variables: dict[str, str], folder: Path) -> str:
    """Return what *command* prints, on either output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=variables,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(RUN_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode()


async def printed(client: Client, driver_of: DriverOf, variables: dict[str, str], folder: Path) -> str:
    """Run the lines of *client* and return what they print."""
    language, lines = sections()[client.name]
    if language == "python" and client.environment != "infernet":
        return str(await (await driver_of(client.environment)).ask(block=lines))
    if language == "python":
        # With the class that the client takes from infernet-ml, which tools/infernet_client.sh leaves out.
        before = f"import runpy; runpy.run_path({str(INFERNET)!r}, run_name='imported')\n"
        return await run(variables["INFERNET"], "-c", before + lines, variables=variables, folder=folder)
    if language == "js":
        return await run(
            node(), "--input-type=module", "--eval", lines, variables=variables, folder=ROOT / "tests/node"
        )
    path = ":".join([*map(str, paths_of(client.environment)), variables["PATH"]])
    return await run("bash", "-euo", "pipefail", "-c", lines, variables=variables | {"PATH": path}, folder=folder)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "client",
    [pytest.param(client, id=client.name, marks=marked(client)) for client in CLIENTS if client.name not in SERVERS],
)
async def test_the_lines_work(
    shop: Shop,
    driver_of: DriverOf,
    surroundings: dict[str, str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    client: Client,
) -> None:
    installed(shop)
    infernet = {"INFERNET": request.getfixturevalue("infernet_python")} if client.environment == "infernet" else {}

    said = await printed(client, driver_of, surroundings | infernet, tmp_path)

    assert SAYS.get(client.name, ANSWER) in said
