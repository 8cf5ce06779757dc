"""Finds engines by name and makes them from what an owner typed.

`ENGINES` names our own; ``package.module:Class`` works for anybody else's. Modules are imported only when chosen, so
that a worker in front of vLLM needs no llama.cpp.
"""

import importlib
import inspect
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from comptoir.kit.address import BadAddress, http_address, looks_like_address
from comptoir.worker.engines.base import Engine, EngineError


class EngineEntry(msgspec.Struct, frozen=True):
    """One engine we ship."""

    name: str
    target: str
    """``module:class``."""
    missing: str
    """What to do when the module's library is not installed."""
    check: str = ""
    """``module:function`` that says, without starting anything, what the engine misses on this machine; it returns an
    empty text where that is nothing."""
    about: str = ""
    """``module:function`` that says in words what it sells here."""


ENGINES: tuple[EngineEntry, ...] = (
    EngineEntry("container", "comptoir.worker.engines.container:ContainerEngine", "pip install aiohttp"),
    EngineEntry("demo", "comptoir.worker.engines.demo:DemoEngine", "pip install xllamacpp"),
    EngineEntry(
        "ffmpeg",
        "comptoir.worker.engines.ffmpeg:FfmpegEngine",
        "pip install 'comptoir[ffmpeg]'",
        "comptoir.worker.engines.ffmpeg.program:missing",
        "comptoir.worker.engines.ffmpeg.program:found",
    ),
    EngineEntry(
        "infernet",
        "comptoir.worker.engines.infernet:InfernetEngine",
        "pip install aiohttp",
        "comptoir.worker.engines.infernet:missing",
    ),
    EngineEntry("llamacpp", "comptoir.worker.engines.llamacpp:LlamaCppEngine", "pip install xllamacpp"),
    EngineEntry("openai", "comptoir.worker.engines.openai:OpenAIEngine", "pip install aiohttp"),
    EngineEntry(
        "python",
        "comptoir.worker.engines.python:PythonEngine",
        "pip install 'comptoir[python]'",
        "comptoir.worker.engines.python:missing",
        "comptoir.worker.engines.python:about",
    ),
    EngineEntry(
        "whisper",
        "comptoir.worker.engines.whisper:WhisperEngine",
        "pip install 'comptoir[whisper]'",
        "comptoir.worker.engines.whisper.engine:missing",
        "comptoir.worker.engines.whisper.engine:found",
    ),
)


_OTHERS = "an address like http://127.0.0.1:8000/v1, a .gguf file, or module:Class"


class EngineSpec(msgspec.Struct, frozen=True):
    """An engine and its options, as chosen by the owner."""

    engine: str
    """A name in `ENGINES`, or ``module:attribute``."""
    options: dict[str, str | int | float | bool] = {}
    """Keyword arguments of the engine's class; text is converted to what the argument's annotation says."""


def parse_spec(text: str) -> EngineSpec:
    """Read ``NAME[,option=value…]``; a bare address is an ``openai`` engine, a bare ``….gguf`` path a ``llamacpp`` one.

    Raises:
        EngineError: the text is empty, an address can't be understood, or an option has no ``=``.
    """
    text = text.strip()
    first = text.split(",", 1)[0].strip()
    if looks_like_address(first):
        text = f"openai,base_url={server_address(first)}{text[len(first) :]}"
    elif first.endswith(".gguf"):
        text = f"llamacpp,path={text}"
    name, *pairs = (part.strip() for part in text.split(","))
    options: dict[str, str | int | float | bool] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise EngineError("engine_spec", f"engine option {pair!r} must look like option=value (in {text!r})")
        options[key.strip()] = value.strip()
    if not name:
        raise EngineError("engine_spec", f"name an engine: {_names()}, {_OTHERS}")
    return EngineSpec(name, options)


def server_address(text: str) -> str:
    """Return the address of a server as an owner typed it.

    Raises:
        EngineError: it can't be understood; the message says what to write.
    """
    try:
        return http_address(text)
    except BadAddress as error:
        raise EngineError("engine_spec", str(error)) from error


def make_engine(spec: EngineSpec, *, slots: int, threads: int | None = None, folder: Path | None = None) -> Engine:
    """Make (not start) the engine that *spec* names.

    An engine that takes ``slots``, ``threads`` or ``folder`` (for the files of programs that it runs) gets these unless
    the options say otherwise (without *threads* its own default, else all processors); an engine that takes ``name``
    beside ``path`` is named after the file.

    Raises:
        EngineError: unknown engine, missing library, or options that don't fit; the message says what to do.
    """
    factory = _load(spec.engine)
    parameters = inspect.signature(factory).parameters
    annotations = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    given: dict[str, Any] = {}
    for key, value in spec.options.items():
        if key not in parameters:
            known = ", ".join(parameters) or "none"
            raise EngineError("engine_spec", f"engine {spec.engine} has no option {key!r}; it has: {known}")
        given[key] = _convert(spec.engine, key, value, annotations.get(key, str))
    filled: dict[str, str | int | Path] = {"slots": slots}
    if folder is not None:
        filled["folder"] = folder
    if threads is not None or ("threads" in parameters and _required(parameters["threads"])):
        filled["threads"] = threads or os.cpu_count() or 1
    if "path" in given:
        filled["name"] = Path(str(given["path"])).stem
    given |= {key: value for key, value in filled.items() if key in parameters and key not in given}
    missing = [key for key, one in parameters.items() if key not in given and _required(one)]
    if missing:
        raise EngineError("engine_spec", f"engine {spec.engine} needs an option: {spec.engine},{missing[0]}=…")
    engine: Engine = factory(**given)
    return engine


def missing_for(entry: EngineEntry) -> str:
    """Return what an engine misses on this machine, with what to do about it; empty if nothing."""
    try:
        _load(entry.name)
    except EngineError as error:
        return error.message
    return _said(entry.check)


def about(entry: EngineEntry) -> str:
    """Return what an engine that misses nothing sells on this machine, in words."""
    return _said(entry.about) or "can be started"


def _said(target: str) -> str:
    if not target:
        return ""
    module, _, function = target.partition(":")
    return str(getattr(importlib.import_module(module), function)())


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_KEYWORD,
        parameter.VAR_POSITIONAL,
    )


def _load(name: str) -> Any:
    entry = next((one for one in ENGINES if one.name == name), None)
    target = entry.target if entry else name
    module, colon, attribute = target.partition(":")
    if not colon:
        raise EngineError("engine_unknown", f"there is no engine {name!r}; choose {_names()}, {_OTHERS}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        hint = entry.missing if entry else f"is {module} on the Python path?"
        raise EngineError("engine_missing", f"engine {name} needs {error.name}, not installed here: {hint}") from error
    except AttributeError as error:
        raise EngineError("engine_unknown", f"module {module} has no {attribute!r}") from error


def _convert(engine: str, key: str, value: object, annotation: Any) -> Any:
    if not isinstance(value, str) or annotation is Any or str in (annotation, *typing.get_args(annotation)):
        return value
    if annotation is Path:
        return Path(value)
    if annotation == Mapping[str, str] or annotation == Mapping[str, str] | None:
        return dict(_pair(engine, key, item) for item in value.split("+"))
    try:
        return msgspec.convert(value, annotation, strict=False)
    except (msgspec.ValidationError, TypeError) as error:
        raise EngineError("engine_spec", f"engine {engine}: option {key}={value!r}: {error}") from error


def _pair(engine: str, key: str, item: str) -> tuple[str, str]:
    name, colon, other = item.partition(":")
    if not colon:
        raise EngineError("engine_spec", f"engine {engine}: {key} looks like name:upstream-name[+…], not {item!r}")
    return name, other


def _names() -> str:
    return ", ".join(entry.name for entry in ENGINES)
