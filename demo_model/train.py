"""Train comptoir-demo from this folder's corpus and write the packaged GGUF: ``python -m demo_model.train``.

Runs on a CPU in minutes; the same seed, corpus and torch version give the same weights on the same kind of machine.
"""

import argparse
import logging
import math
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .corpus import corpus_sha256, read_entries, read_unknown
from .gguf_file import write_gguf
from .network import Network, Shape
from .samples import SYSTEM_PROMPTS, Sampler
from .tokenizer import Tokenizer, train_tokenizer

log = logging.getLogger("demo_model")

SEED = 20
VOCABULARY = 2048
CONTEXT = 2048
BATCH_TOKENS = 4096
SHORT_ROW, LONG_ROW = 128, 512
LONG_EVERY = 3
"""Every third batch holds whole conversations, the others single questions."""
PACKAGED = Path(__file__).parents[1] / "src/comptoir/worker/engines/demo_model/comptoir-demo.gguf"


def make_tokenizer() -> Tokenizer:
    """Train the tokenizer on questions (as they are seen: lower case) and answers."""
    unknown = read_unknown()
    texts = [unknown.answer, *SYSTEM_PROMPTS, *(question.lower() for question in unknown.questions)]
    for entry in read_entries():
        texts += [text for question in entry.questions for text in (question.lower(), question)]
        texts += [entry.answer] * 3
    return train_tokenizer(texts, size=VOCABULARY)


def loss_of(network: Network, ids: Tensor, learn: Tensor) -> Tensor:
    """Return the mean cross-entropy over the learned positions."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = network(ids[:, :-1])[learn[:, 1:]]
        logits = hidden @ network.token_embd.weight.T
    return F.cross_entropy(logits.float(), ids[:, 1:][learn[:, 1:]])


def optimizers(network: Network, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices (fewer steps to the same loss), AdamW for embedding and norms."""
    matrices = [weight for name, weight in network.named_parameters() if weight.ndim == 2 and "token_embd" not in name]
    others = [weight for name, weight in network.named_parameters() if weight.ndim != 2 or "token_embd" in name]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_at(step: int, steps: int) -> float:
    """Return the share of the peak rate: a short warm-up, then a cosine to 2 %."""
    if step < 40:
        return (step + 1) / 40
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - 40) / max(1, steps - 40)))


def train(steps: int, rate: float, out: Path) -> None:
    """Train for *steps* batches and write *out*."""
    torch.manual_seed(SEED)
    # Taken before the first step: the file must name the text it was trained from, also when somebody edits meanwhile.
    trained_from = corpus_sha256()
    tokenizer = make_tokenizer()
    network = Network(Shape(vocab=len(tokenizer)))
    sampler = Sampler(read_entries(), read_unknown(), tokenizer, seed=SEED)
    opts = optimizers(network, rate)
    size = sum(weight.numel() for weight in network.parameters())
    log.info("%d entries, %d tokens, %.2f M parameters", len(sampler.entries), len(tokenizer), size / 1e6)
    started, seen, total = time.monotonic(), 0, 0.0
    for step in range(steps):
        ids, learn = sampler.batch(BATCH_TOKENS, LONG_ROW if step % LONG_EVERY == 0 else SHORT_ROW)
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = rate * rate_at(step, steps)
        loss = loss_of(network, ids, learn)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        seen, total = seen + ids.numel(), total + loss.item()
        if (step + 1) % 50 == 0:
            pace = seen / (time.monotonic() - started)
            log.info("step %d loss %.4f, %.0f tokens/s, %.0f s", step + 1, total / 50, pace, time.monotonic() - started)
            total = 0.0
    write_gguf(out, network, tokenizer, context=CONTEXT, corpus_sha256=trained_from)
    log.info("wrote %s, %.2f MB", out.name, out.stat().st_size / 1e6)


def main() -> None:
    """Read the flags and train."""
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--steps", type=int, default=650)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=PACKAGED)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(chosen.threads)
    train(chosen.steps, chosen.rate, chosen.out)


if __name__ == "__main__":
    main()
