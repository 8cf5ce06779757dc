"""Runs a buyer's program inside the walls: ``python -I -S -u -B runner.py FOLDER``. Standard library only.

*FOLDER* holds ``order.json`` (`file`, `calls`, `args`, `work`, `paths`, `inputs`), ``input.json`` where a function is
called with one, and `comptoir_job`. On the channel, descriptor 3, lines of JSON: ``{"started": true}`` before anything
of the program runs, what the program says (`comptoir_job`), and ``{"error", "kind"}`` of what it did not catch.
"""

import importlib.util
import json
import os
import site
import sys
import traceback
import types
from typing import Any

CHANNEL = 3
FAILED = 1


def main(folder: str) -> None:
    """Run the program that *folder* describes; ends as it does."""
    with open(f"{folder}/order.json", "rb") as file:
        order = json.load(file)
    sys.path.insert(0, folder)
    job: Any = importlib.import_module("comptoir_job")
    job._channel.descriptor = CHANNEL
    job.inputs.update(order["inputs"])
    path = os.path.join(order["work"], order["file"])
    sys.argv = [order["file"], *order["args"]]
    sys.path.insert(0, os.path.dirname(path))
    for each in order["paths"]:
        site.addsitedir(each)
    job._channel.say({"started": True})
    try:
        if order["calls"]:
            job.result(call(path, order["calls"], given(folder)))
        else:
            script(path)
    except SystemExit:
        raise
    except job.NoJson as error:
        report(job, error, "result")
    except BaseException as error:  # Whatever it is, its author wants to see where it came from.
        report(job, error, kind_of(error))


def given(folder: str) -> Any:
    """Return what the function is called with; None where the order has no input."""
    try:
        with open(f"{folder}/input.json", "rb") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def script(path: str) -> None:
    """Run the file as a script."""
    module = types.ModuleType("__main__")
    module.__file__ = path
    module.__builtins__ = __builtins__  # type: ignore[attr-defined]
    sys.modules["__main__"] = module
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    exec(code, module.__dict__)


def call(path: str, function: str, value: Any) -> Any:
    """Load the file as a module, and call *function* in it."""
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{os.path.basename(path)} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    found = getattr(module, function, None)
    if not callable(found):
        raise AttributeError(f"{os.path.basename(path)} has no function {function}")
    return found(value)


def kind_of(error: BaseException) -> str:
    """Return which limit an exception stands for; empty: none."""
    if isinstance(error, MemoryError):
        return "memory"
    # The file grew too long, the disk is full, or the quota is used up.
    return "disk" if isinstance(error, OSError) and error.errno in (27, 28, 122) else ""


def report(job: Any, error: BaseException, kind: str) -> None:
    """Show where the program failed, without what is ours, and end with an exit code."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith((__file__, "<frozen importlib")):
        frames = frames.tb_next
    try:
        words = f"{type(error).__name__}: {error}".removesuffix(": ")
        if kind == "result":
            words = f"what it returned is no JSON: {error}"
            print(f"comptoir: {words}", file=sys.stderr)
        else:
            traceback.print_exception(type(error), error, frames)
    except Exception as unshown:  # An exception of the program's own making may fail at being shown.
        words = type(error).__name__
        print(f"comptoir: {words} can't be shown: {type(unshown).__name__}", file=sys.stderr)
    job._channel.say({"error": words[:500], "kind": kind})
    sys.exit(FAILED)


if __name__ == "__main__":
    main(sys.argv[1])
