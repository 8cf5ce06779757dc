"""The demo engine: the small model that ships with the package, so that a first start answers without a download.

How it was made, and how to make it again: the folder ``demo_model`` of the repository.
"""

from pathlib import Path

from .llamacpp import Json, LlamaCppEngine

MODEL = Path(__file__).parent / "demo_model" / "comptoir-demo.gguf"
CONTEXT_TOKENS = 2048


class DemoEngine(LlamaCppEngine):
    """``comptoir-demo``: about five million parameters that know Comptoir and little else."""

    # It learned one answer to each question, so the likeliest token is the right one; its longest answer has 80 tokens.
    defaults: Json = {"temperature": 0.0, "n_predict": 512}

    def __init__(self, *, slots: int = 4, threads: int = 1) -> None:
        super().__init__(path=MODEL, name="comptoir-demo", context_tokens=CONTEXT_TOKENS, slots=slots, threads=threads)
