"""Client libraries, driven line by line: a JSON request on each line of stdin, its outcome on one line of stdout.

Runs in the environment of a client (tools/clients.sh), so it imports nothing of ours but the drivers beside it, whose
names are its arguments. A request is one of

    {"driver": "by_openai", "form": "stream", "prompt": "…", "retries": 0}
    {"block": "…Python as docs/clients.md has it…"}

and the answer is ``{"result": …}``, or ``{"error": {"type": …, "words": …}}`` when the client raised. A form gives the
text that the client made of the answer, or the object for ``structured``; a block gives what it printed.
"""

import asyncio
import contextlib
import importlib
import inspect
import io
import json
import sys
from typing import Any


def outcome(request: dict[str, Any], forms: dict[str, Any], runner: asyncio.Runner) -> dict[str, Any]:
    """Do what *request* says."""
    try:
        if "block" in request:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(request["block"], "docs/clients.md", "exec"), {"__name__": "__main__"})
            return {"result": printed.getvalue()}
        form = getattr(forms[request["driver"]], request["form"])
        result = form(request["prompt"], request["retries"])
        return {"result": runner.run(result) if inspect.iscoroutine(result) else result}
    except Exception as error:  # Whatever the client raises is what the test wants to see, so it is handed on.
        return {"error": {"type": type(error).__name__, "words": f"{error}"}}


def main() -> None:
    """Answer lines until stdin ends; the first line out says that the clients are there."""
    # What a client prints by itself is no outcome.
    lines, sys.stdout = sys.stdout, sys.stderr
    forms = {name: importlib.import_module(name) for name in sys.argv[1:]}
    print(json.dumps({"ready": True}), file=lines, flush=True)
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            print(json.dumps(outcome(json.loads(line), forms, runner)), file=lines, flush=True)


if __name__ == "__main__":
    main()
