"""The network: a small Llama (RMS norm, rotary positions, grouped-query attention, SwiGLU), tied embeddings."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMBEDDING_DROPOUT = 0.1
"""Share of embedding values hidden in training, so that no question is known by one word alone."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; what llama.cpp calls them is in gguf_file.py."""

    vocab: int
    width: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    inner: int = 768
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5


class Norm(nn.Module):
    """Root-mean-square norm."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Return *x* scaled to length one, times the learned weights."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class Layer(nn.Module):
    """Attention and a gated feed-forward, each behind a norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        head = shape.width // shape.heads
        self.shape = shape
        self.attn_norm = Norm(shape.width, shape.norm_epsilon)
        self.attn_q = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_k = nn.Linear(shape.width, head * shape.kv_heads, bias=False)
        self.attn_v = nn.Linear(shape.width, head * shape.kv_heads, bias=False)
        self.attn_output = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_norm = Norm(shape.width, shape.norm_epsilon)
        self.ffn_gate = nn.Linear(shape.width, shape.inner, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.inner, bias=False)
        self.ffn_down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Return the next hidden states, (batch, length, width)."""
        batch, length, _ = x.shape
        h = self.attn_norm(x)
        q = rotate(self.attn_q(h).view(batch, length, self.shape.heads, -1), rope).transpose(1, 2)
        k = rotate(self.attn_k(h).view(batch, length, self.shape.kv_heads, -1), rope).transpose(1, 2)
        v = self.attn_v(h).view(batch, length, self.shape.kv_heads, -1).transpose(1, 2)
        k, v = (part.repeat_interleave(self.shape.heads // self.shape.kv_heads, 1) for part in (k, v))
        x = x + self.attn_output(attend(q, k, v).transpose(1, 2).reshape(batch, length, -1))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Network(nn.Module):
    """Token ids in, the last hidden state out; the head is the embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab, shape.width)
        self.blk = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.output_norm = Norm(shape.width, shape.norm_epsilon)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                deep = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * shape.layers) ** 0.5 if deep else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the last hidden states of *ids*, (batch, length, width)."""
        rope = rotations(ids.shape[1], self.shape)
        x = F.dropout(self.token_embd(ids), EMBEDDING_DROPOUT, self.training)
        for layer in self.blk:
            x = layer(x, rope)
        out: Tensor = self.output_norm(x)
        return out


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal attention, written out: on a CPU with short rows its backward pass is faster than the fused one."""
    length = q.shape[2]
    scores = q @ k.transpose(2, 3) * q.shape[3] ** -0.5
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    return scores.masked_fill(later, float("-inf")).softmax(-1).to(v.dtype) @ v


def rotations(length: int, shape: Shape) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, (length, 1, head / 2)."""
    half = shape.width // shape.heads // 2
    turn = torch.outer(torch.arange(length), shape.rope_base ** (-torch.arange(half) / half))
    return turn.cos()[:, None], turn.sin()[:, None]


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn neighbouring pairs, the order llama.cpp expects of a Llama."""
    cos, sin = rope
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)
