"""How long a context an OpenAI-compatible server really runs a model with, where its list of models does not say so.

The list may be silent, or state what the model was trained for: llama.cpp started with 4,096 tokens lists 131,072, and
whoever believes it sells prompts that the server refuses. Each project has a place of its own where the figure in
force can be read. What nobody states stays unknown, and is never guessed upwards: what a model could be loaded with is
no promise.
"""

import asyncio
import re
from collections.abc import Collection
from typing import Any

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.openai_upstream import Upstream

_NUM_CTX = re.compile(r"^num_ctx\s+(\d{1,9})$", re.MULTILINE)

OLLAMA_MODELS_MAX = 64
"""Models of one Ollama that are asked about: each is a request."""


async def contexts_in_force(upstream: Upstream, models: Collection[str]) -> dict[str, int]:
    """Return the tokens, prompt and answer together, that each of *models* (the server's ids) may have, where the
    server tells.

    llama.cpp: ``/props`` has the context of one slot. TGI: ``/info`` has the most tokens in all. LM Studio:
    ``/api/v0/models`` has what a loaded model was loaded with. Ollama: ``/api/ps`` has the same, and ``/api/show`` the
    ``num_ctx`` of models that have one. Four requests at once, and for Ollama one a model.
    """
    props, info, loaded, listed = await asyncio.gather(
        *[upstream.look(path) for path in ("/props", "/info", "/api/ps", "/api/v0/models")]
    )
    one = _positive(_at(props, "default_generation_settings", "n_ctx")) or _positive(info.get("max_total_tokens"))
    if one:
        return dict.fromkeys(models, one)
    found = {str(entry.get("id")): _positive(entry.get("loaded_context_length")) for entry in _entries(listed, "data")}
    if isinstance(loaded.get("models"), list):
        found |= await _of_ollama(upstream, _entries(loaded, "models"), models)
    return {model: found[model] for model in models if found.get(model)}


async def _of_ollama(upstream: Upstream, loaded: list[dict[str, Any]], models: Collection[str]) -> dict[str, int]:
    found = {str(entry.get("name")): _positive(entry.get("context_length")) for entry in loaded}
    for model in list(models)[:OLLAMA_MODELS_MAX]:
        if not found.get(model):
            try:
                shown = await upstream.ask("/api/show", {"model": model})
            except EngineError:
                continue  # It says nothing of this one.
            stated = _NUM_CTX.search(str(shown.get("parameters", "")))
            found[model] = int(stated[1]) if stated else 0
    return found


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _entries(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = answer.get(name)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _positive(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
