"""Write the trained network as a GGUF file that llama.cpp loads: Q8_0 weights, tokenizer, chat template, provenance."""

from pathlib import Path

import gguf
import numpy
import torch

from .network import Network
from .tokenizer import BOS, END, FIRST_BYTE, SPECIALS, TURNS, Tokenizer

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] | lower | trim }}<|end|>"
    "{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'] | trim }}<|end|>"
    "{% else %}<|system|>{{ message['content'] | lower | trim }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Users' text is lowered: the network is too small to spend itself on capitals."""

TENSORS = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")


def write_gguf(path: Path, network: Network, tokenizer: Tokenizer, *, context: int, corpus_sha256: str) -> None:
    """Write *path*; *context* is the longest prompt and answer the file promises."""
    writer = gguf.GGUFWriter(path, "llama")
    shape = network.shape
    writer.add_name("comptoir-demo")
    writer.add_description("Answers questions about Comptoir; trained from the text in this project's repository.")
    writer.add_string("comptoir.corpus_sha256", corpus_sha256)
    writer.add_context_length(context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.vocab)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    _add_tokenizer(writer, tokenizer)
    _add_tensors(writer, network)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    tokens = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *TURNS, *tokenizer.pieces]
    control, plain, single, unknown = (
        int(kind)
        for kind in (gguf.TokenType.CONTROL, gguf.TokenType.NORMAL, gguf.TokenType.BYTE, gguf.TokenType.UNKNOWN)
    )
    types = [unknown, control, control] + [single] * 256 + [control] * len(TURNS) + [plain] * len(tokenizer.pieces)
    scores = [0.0] * (FIRST_BYTE + 256 + len(TURNS)) + [-float(rank) for rank in range(1, len(tokenizer.pieces) + 1)]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(END)
    writer.add_eot_token_id(END)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensors(writer: gguf.GGUFWriter, network: Network) -> None:
    weights = {name: weight.detach().to(torch.float32).numpy() for name, weight in network.state_dict().items()}
    names = ["token_embd", *(f"blk.{n}.{part}" for n in range(network.shape.layers) for part in TENSORS), "output_norm"]
    for name in names:
        weight = numpy.ascontiguousarray(weights[f"{name}.weight"])
        if weight.ndim == 1:
            writer.add_tensor(f"{name}.weight", weight)
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(weight, kind), raw_dtype=kind)
