"""What an OpenAI-compatible server says of its models outside OpenAI's API: the context in force, and capabilities.

The list of models may be silent, or state the context that a model was trained for: llama.cpp started with 4,096 tokens
lists 131,072, and whoever believes it sells prompts that the server refuses. Each project has a place of its own for
the figure in force, and some say there what a model can do. What nobody states stays unknown, and is never guessed
upwards: what a model could be loaded with is no promise.
"""

import asyncio
import re
from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from comptoir.kinds.capabilities import CLAIMED, LACKING
from comptoir.kinds.tokens.capabilities import REASONING, TOOLS, VISION
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.openai_upstream import Upstream

_NUM_CTX = re.compile(r"^num_ctx\s+(\d{1,9})$", re.MULTILINE)

OLLAMA_MODELS_MAX = 64
"""Models of one Ollama that are asked about: each is a request."""

PLACE_TIMEOUT_S = 3.0
"""Most seconds for one place: a server that knows it answers at once, and some let unknown paths hang."""

_PLACES = ("/props", "/info", "/model_info", "/get_model_info", "/api/ps", "/api/v1/models", "/api/v0/models")


class Stated(msgspec.Struct, frozen=True):
    """What a server says of one model."""

    context_tokens: int = 0
    """Prompt and answer together; 0: it does not say."""
    capabilities: dict[str, str] = {}
    """`CLAIMED` or `LACKING` by name; of others it says nothing."""


async def read_metadata(upstream: Upstream, models: Collection[str]) -> dict[str, Stated]:
    """Return what the server states of *models* (its own ids), where it states anything.

    Seven requests at once, and for Ollama one a model.

    - llama.cpp: ``/props`` has the context of one slot, whether images are read, and whether the template takes tools.
      Without that the server drops them without a word.
    - TGI: ``/info`` has the most tokens in all, and what the model is made for.
    - SGLang: ``/model_info`` (``/get_model_info`` until 2025) says whether images are read.
    - LM Studio: ``/api/v1/models`` (since 0.4) and ``/api/v0/models`` have the context that a model was loaded with,
      whether it reads images, and whether it was trained to use tools; others use them by a prompt of LM Studio's.
    - Ollama: ``/api/ps`` has the context of loaded models, ``/api/show`` the ``num_ctx`` of those that have one, and a
      complete list of capabilities.

    vLLM and TensorRT-LLM state nothing of the kind.
    """
    found = await asyncio.gather(*[_look(upstream, place) for place in _PLACES])
    props, info, new_info, old_info, loaded, listed, listed_before = found
    one = _stated_by_llama_cpp(props) or _stated_by_tgi(info) or _stated_by_sglang(new_info or old_info)
    if one is not None:
        return dict.fromkeys(models, one)
    stated = dict(_stated_by_lm_studio_before(listed_before)) | dict(_stated_by_lm_studio(listed))
    if isinstance(loaded.get("models"), list):
        stated |= await _stated_by_ollama(upstream, _entries(loaded, "models"), models)
    return {model: stated[model] for model in models if model in stated}


async def _look(upstream: Upstream, place: str) -> dict[str, Any]:
    try:
        async with asyncio.timeout(PLACE_TIMEOUT_S):
            return await upstream.look(place)
    except TimeoutError:
        return {}


def _stated_by_llama_cpp(props: dict[str, Any]) -> Stated | None:
    context = _positive(_at(props, "default_generation_settings", "n_ctx"))
    vision = _at(props, "modalities", "vision")
    tools = _at(props, "chat_template_caps", "supports_tools")
    said = {TOOLS: tools, VISION: vision}
    return Stated(context, _read(said)) if context or _read(said) else None


def _stated_by_tgi(info: dict[str, Any]) -> Stated | None:
    context = _positive(info.get("max_total_tokens"))
    made_for = info.get("model_pipeline_tag")
    vision = {"image-text-to-text": True, "text-generation": False}.get(made_for) if isinstance(made_for, str) else None
    return Stated(context, _read({VISION: vision})) if context else None


def _stated_by_sglang(info: dict[str, Any]) -> Stated | None:
    said = _read({VISION: info.get("has_image_understanding")})
    return Stated(0, said) if said else None


def _stated_by_lm_studio(listed: dict[str, Any]) -> Iterator[tuple[str, Stated]]:
    for entry in _entries(listed, "models"):
        said = _read(
            {
                # It lets the others use tools as well, with a prompt of its own.
                TOOLS: _at(entry, "capabilities", "trained_for_tool_use") or None,
                VISION: _at(entry, "capabilities", "vision"),
            }
        )
        instances = _entries(entry, "loaded_instances")
        for instance in instances:
            yield str(instance.get("id")), Stated(_positive(_at(instance, "config", "context_length")), said)
        contexts = [_positive(_at(instance, "config", "context_length")) for instance in instances]
        yield str(entry.get("key")), Stated(min(contexts, default=0), said)


def _stated_by_lm_studio_before(listed: dict[str, Any]) -> Iterator[tuple[str, Stated]]:
    for entry in _entries(listed, "data"):
        able = entry.get("capabilities")
        tools = True if isinstance(able, list) and "tool_use" in able else None
        vision = {"vlm": True, "llm": False}.get(str(entry.get("type")))
        context = _positive(entry.get("loaded_context_length"))
        yield str(entry.get("id")), Stated(context, _read({TOOLS: tools, VISION: vision}))


async def _stated_by_ollama(
    upstream: Upstream, loaded: list[dict[str, Any]], models: Collection[str]
) -> dict[str, Stated]:
    contexts = {str(entry.get("name")): _positive(entry.get("context_length")) for entry in loaded}
    found: dict[str, Stated] = {}
    for model in list(models)[:OLLAMA_MODELS_MAX]:
        try:
            shown = await upstream.ask("/api/show", {"model": model})
        except EngineError:
            shown = {}  # It says nothing of this one.
        context = contexts.get(model, 0)
        if not context and (set_to := _NUM_CTX.search(str(shown.get("parameters", "")))):
            context = int(set_to[1])
        found[model] = Stated(context, _of_ollama(shown.get("capabilities")))
    return found


def _of_ollama(listed: object) -> dict[str, str]:
    if not isinstance(listed, list):
        return {}  # Before 0.6.4 it had no such list.
    return _read({TOOLS: "tools" in listed, VISION: "vision" in listed, REASONING: "thinking" in listed})


def _read(said: dict[str, Any]) -> dict[str, str]:
    """Return claims of what *said* to be true or false; everything else says nothing."""
    return {name: CLAIMED if value else LACKING for name, value in said.items() if isinstance(value, bool)}


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _entries(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = answer.get(name)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _positive(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
