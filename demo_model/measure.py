"""Measure a demo model through the engine that serves it: ``PYTHONPATH=src python -m demo_model.measure [FILE]``.

An answer counts when it is the corpus answer word for word (greedy). Needs no torch.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from comptoir.link import Frame
from comptoir.worker.engines.base import EngineRequest
from comptoir.worker.engines.demo import CONTEXT_TOKENS, MODEL
from comptoir.worker.engines.llamacpp import LlamaCppEngine

from .augment import vary
from .corpus import read_entries, read_unknown

Pair = tuple[str, str]


async def answer(engine: LlamaCppEngine, question: str, kind: str) -> tuple[str, int]:
    """Return the greedy answer to *question* and its tokens."""
    asked = {"messages": [{"role": "user", "content": question}]} if kind == "chat" else {"prompt": question}
    body = msgspec.json.encode(asked | {"temperature": 0, "max_tokens": 200})
    frames = [item async for item in engine.run(EngineRequest(kind, engine.name, body)) if isinstance(item, Frame)]
    return "".join(frame.text for frame in frames).strip(), sum(frame.tokens for frame in frames)


async def share_right(
    engine: LlamaCppEngine, name: str, pairs: Iterable[Pair], *, show: bool, kind: str = "chat"
) -> None:
    """Print how many of *pairs* are answered as written, and which are not."""
    right = total = tokens = 0
    started = time.monotonic()
    for question, expected in pairs:
        said, count = await answer(engine, question, kind)
        total, tokens = total + 1, tokens + count
        right += said == expected
        if show and said != expected:
            print(f"  {question!r}\n    -> {said[:110]!r}\n       {expected[:110]!r}")
    pace = tokens / (time.monotonic() - started)
    print(f"{name}: {right} of {total} right ({100 * right / total:.1f} %), {pace:.0f} tokens/s")


async def measure(path: Path, *, show: bool) -> None:
    """Measure trained questions, held-out ones, varied ones and unknown ones."""
    entries, unknown = read_entries(), read_unknown()
    rng = random.Random(7)
    engine = LlamaCppEngine(path=path, name="measured", context_tokens=CONTEXT_TOKENS, slots=1, threads=1)
    started = time.monotonic()
    await engine.start()
    print(f"loaded in {time.monotonic() - started:.2f} s")
    trained = [(question, entry.answer) for entry in entries for question in entry.questions]
    held_out = [(question, entry.answer) for entry in entries for question in entry.held_out]
    typed = [(vary(question, rng), told) for question, told in held_out]
    strange = [(question, unknown.answer) for question in unknown.held_out]
    await share_right(engine, "trained questions", trained, show=show)
    await share_right(engine, "trained questions, as a plain prompt", trained[::5], show=False, kind="completion")
    await share_right(engine, "held-out paraphrases", held_out, show=show)
    await share_right(engine, "held-out paraphrases, typed sloppily", typed, show=False)
    await share_right(engine, "held-out unknown questions", strange, show=show)
    await engine.close()


def main() -> None:
    """Read the flags and measure."""
    parser = argparse.ArgumentParser(description="Measure the demo model.")
    parser.add_argument("file", type=Path, nargs="?", default=MODEL)
    parser.add_argument("--show", action="store_true", help="print every wrong answer")
    chosen = parser.parse_args()
    print(f"{chosen.file.stat().st_size / 1e6:.2f} MB")
    asyncio.run(measure(chosen.file, show=chosen.show))


if __name__ == "__main__":
    main()
