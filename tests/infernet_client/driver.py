"""Infernet's official client, driven line by line: a JSON request on each line of stdin, its outcomes on one of stdout.

Runs in the environment of tools/infernet_client.sh, so it imports nothing of ours. A request is

    {"url": "http://…", "call": "request_job", "arguments": {…}, "times": 1, "at_once": 1}

where *call* is a method of `NodeClient`; *times* repeats it, *at_once* at a time. The answer is a list with one outcome
a time: ``{"result": …}``, or ``{"error": {"type", "status", "message", "params"}}``. A stream's result is the list of
what the client yielded, bytes as latin-1 text; an error midway comes with what was yielded before as ``"result"``.
"""

import asyncio
import json
import sys
from types import ModuleType
from typing import Any

# The client takes one class from infernet-ml, for annotations; see tools/infernet_client.sh.
SPEC = ModuleType("infernet_ml.utils.spec")
SPEC.ServiceResources = dict  # type: ignore[attr-defined]
sys.modules |= {name: ModuleType(name) for name in ("infernet_ml", "infernet_ml.utils")} | {SPEC.__name__: SPEC}

from infernet_client import NodeClient  # noqa: E402
from infernet_client.chain.rpc import RPC  # noqa: E402
from infernet_client.chain.subscription import Subscription  # noqa: E402


async def call_once(client: Any, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the outcome of one call."""
    yielded: list[str] = []
    try:
        if name == "request_stream":
            async for piece in client.request_stream(**arguments):
                # One by one, so that what came is there when the stream breaks.
                yielded.append(piece.decode("latin-1") if isinstance(piece, bytes) else piece)  # noqa: PERF401
            return {"result": yielded}
        if name == "request_delegated_subscription":
            arguments = {
                **{key: value for key, value in arguments.items() if key != "rpc_url"},
                "subscription": Subscription(**arguments["subscription"]),
                "rpc": RPC(arguments["rpc_url"]),
            }
        return {"result": await getattr(client, name)(**arguments)}
    except Exception as error:  # Whatever the client raises is what the test wants to see, so it is handed on.
        found = {
            "type": type(error).__name__,
            "status": getattr(error, "status_code", getattr(error, "status", None)),
            "message": getattr(error, "message", str(error)),
            "params": getattr(error, "params", None),
        }
        return {"error": found, "result": yielded}


async def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the outcomes of all times."""
    room = asyncio.Semaphore(request.get("at_once", 1))
    client = NodeClient(request["url"])

    async def one() -> dict[str, Any]:
        async with room:
            return await call_once(client, request["call"], request.get("arguments", {}))

    return await asyncio.gather(*(one() for _ in range(request.get("times", 1))))


def main() -> None:
    """Answer lines until stdin ends; the first line out says that the client is there."""
    print(json.dumps({"ready": True}), flush=True)
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            print(json.dumps(runner.run(answer(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
