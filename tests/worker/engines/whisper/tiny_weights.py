"""Weights of Whisper's real architecture that fit into a few megabytes, made in a second without any training.

They were not trained but written: what comes next follows from the last token alone (each has a dimension of its own),
so that they say `SAID` in every window, whatever they hear; all other matrices are small noise. The tokenizer has
Whisper's special tokens at their places, bytes, and the words of `SAID`.

``python -m tests.worker.engines.whisper.tiny_weights FOLDER`` writes one to try by hand.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ctranslate2
import numpy
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from comptoir.kinds.whisper.languages import LANGUAGES

WIDTH, HEADS, WINDOW, POSITIONS, MELS = 64, 2, 1500, 448, 80
LOUD = 2.0
WORDS = ("Good", "morning", "boats", "are", "late", "today", "and", "so", "we", "wait", "in", "rain", "Trans", "lated")
SAID = ("Good morning", "boats are late", "today and so", "we wait in", "rain")
"""Segments of every window, each of `SEGMENT_S`, with 0.02 s between two."""
SEGMENT_S = 2.0
TRANSLATED = "Trans lated"
"""The first one of a translation."""


class Vocabulary:
    """Whisper's tokens: 50,257 of text (one less in English-only models), then the special ones."""

    def __init__(self, *, multilingual: bool) -> None:
        self.texts = 50_257 if multilingual else 50_256
        languages = [f"<|{code}|>" for code in LANGUAGES]
        self.special = ["<|endoftext|>", "<|startoftranscript|>", *languages, "<|translate|>", "<|transcribe|>"]
        self.special += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
        self.special += [f"<|{index * 0.02:.2f}|>" for index in range(1501)]
        self.ids = {token: self.texts + at for at, token in enumerate(self.special)}
        self.words = {word: 300 + at for at, word in enumerate(WORDS)}
        self.languages = [self.ids[token] for token in languages]
        self.size = self.texts + len(self.special)

    def write(self, folder: Path) -> None:
        """Write ``tokenizer.json``, and what CTranslate2 itself reads."""
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        texts = {character: at for at, character in enumerate(alphabet)}
        texts |= {f"Ġ{word}": at for word, at in self.words.items()}
        taken = set(texts.values())
        texts |= {f"ĠĠĠ{at}": at for at in range(self.texts) if at not in taken}
        tokenizer = Tokenizer(models.BPE(texts, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(token, special=True) for token in self.special])
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def chain(vocabulary: Vocabulary) -> Iterator[tuple[int, int]]:
    """Yield what follows on what: the beginning, each word of `SAID` between its times, the end."""
    ids, words = vocabulary.ids, vocabulary.words
    yield ids["<|startoftranscript|>"], ids["<|en|>"]
    last = ids["<|transcribe|>"]
    yield ids["<|translate|>"], ids["<|0.04|>"]
    yield ids["<|0.04|>"], words["Trans"]
    yield words["Trans"], words["lated"]
    yield words["lated"], ids[f"<|{SEGMENT_S:.2f}|>"]
    for number, text in enumerate(SAID):
        start = number * (SEGMENT_S + 0.02)
        tokens = [ids[f"<|{start:.2f}|>"], *[words[word] for word in text.split()], ids[f"<|{start + SEGMENT_S:.2f}|>"]]
        for token in tokens:
            yield last, token
            last = token
    yield last, ids["<|endoftext|>"]


def write_tiny(folder: Path, *, multilingual: bool = True, layers: tuple[int, int] = (1, 1), seed: int = 1) -> Path:
    """Write a model; return its folder.

    Args:
        layers: how many hear, and how many write; a turbo model has fewer of these.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, random = Vocabulary(multilingual=multilingual), numpy.random.default_rng(seed)
    spec = ctranslate2.specs.WhisperSpec(layers[0], HEADS, layers[1], HEADS)

    def noise(*shape: int) -> Any:
        return random.normal(0, 0.01, shape).astype(numpy.float32)

    _fill_encoder(spec.encoder, noise)
    _fill_decoder(spec.decoder, noise, vocabulary)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [220, vocabulary.ids["<|endoftext|>"]]
    spec.config.lang_ids = vocabulary.languages if multilingual else []
    spec.config.alignment_heads = [[0, 0], [0, 1]]
    texts = [f"text{at}" for at in range(vocabulary.texts)]
    if multilingual:
        texts[-1] = ""  # By this CTranslate2 knows them.
    spec.register_vocabulary(texts + vocabulary.special)
    spec.validate()
    spec.optimize(quantization="float16")
    spec.save(str(folder))
    vocabulary.write(folder)
    return folder


def _fill_encoder(encoder: Any, noise: Any) -> None:
    encoder.conv1.weight, encoder.conv1.bias = noise(WIDTH, MELS, 3), noise(WIDTH)
    encoder.conv2.weight, encoder.conv2.bias = noise(WIDTH, WIDTH, 3), noise(WIDTH)
    encoder.position_encodings.encodings = noise(WINDOW, WIDTH)
    _norm(encoder.layer_norm)
    for layer in encoder.layer:
        _attention(layer.self_attention, noise, [3 * WIDTH, WIDTH])
        _forward(layer.ffn, noise)


def _fill_decoder(decoder: Any, noise: Any, vocabulary: Vocabulary) -> None:
    into, out = noise(vocabulary.size, WIDTH), noise(vocabulary.size, WIDTH)
    links = list(chain(vocabulary))
    assert len(links) <= WIDTH, "each has a dimension of its own"
    for dimension, (token, following) in enumerate(links):
        into[token], out[following] = 0, out[following]
        into[token, dimension] = LOUD
        out[following, dimension] = LOUD
    decoder.embeddings.weight, decoder.projection.weight = into, out
    decoder.position_encodings.encodings = noise(POSITIONS, WIDTH)
    _norm(decoder.layer_norm)
    for layer in decoder.layer:
        _attention(layer.self_attention, noise, [3 * WIDTH, WIDTH])
        _attention(layer.attention, noise, [WIDTH, 2 * WIDTH, WIDTH])
        _forward(layer.ffn, noise)


def _norm(norm: Any) -> None:
    norm.gamma, norm.beta = numpy.ones(WIDTH, numpy.float32), numpy.zeros(WIDTH, numpy.float32)


def _attention(attention: Any, noise: Any, widths: list[int]) -> None:
    _norm(attention.layer_norm)
    for linear, width in zip(attention.linear, widths, strict=True):
        linear.weight, linear.bias = noise(width, WIDTH), noise(width)


def _forward(ffn: Any, noise: Any) -> None:
    _norm(ffn.layer_norm)
    ffn.linear_0.weight, ffn.linear_0.bias = noise(4 * WIDTH, WIDTH), noise(4 * WIDTH)
    ffn.linear_1.weight, ffn.linear_1.bias = noise(WIDTH, 4 * WIDTH), noise(WIDTH)


def kept_tiny(folder: Path, **options: Any) -> Path:
    """Return a model as `write_tiny` writes it, kept in *folder* under the hash of this script and its options."""
    key = hashlib.sha256(Path(__file__).read_bytes() + json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]
    kept = folder / key
    if not (kept / "tokenizer.json").exists():
        write_tiny(kept, **options)
    return kept


if __name__ == "__main__":
    print(write_tiny(Path(sys.argv[1])))
