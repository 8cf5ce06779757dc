"""A byte-pair tokenizer of our own that llama.cpp reads as its "SPM" kind: scored pieces, single bytes for the rest.

A character outside the vocabulary becomes its UTF-8 bytes, one token each, so any input works; and a fragment of a
character is always a byte token, which is what lets the engine name every token of a multi-byte character.
"""

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

SPECIALS = ("<unk>", "<s>", "</s>")
FIRST_BYTE = len(SPECIALS)
TURNS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
FIRST_TURN = FIRST_BYTE + 256
FIRST_PIECE = FIRST_TURN + len(TURNS)
BOS = 1
SYSTEM, USER, ASSISTANT, END = range(FIRST_TURN, FIRST_PIECE)
_WORD = re.compile(r"\u2581?(?:[^\W\d_]+|\d|[^\w\s\u2581]|_)|[\s\S]")


def split_words(text: str) -> list[str]:
    """Cut *text* where no piece may cross: a word, a digit, one sign; a leading space belongs to what follows."""
    return _WORD.findall(text.replace(" ", "\u2581"))


class Tokenizer:
    """Pieces in the order they were merged; an earlier piece wins (llama.cpp: the higher score)."""

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces
        self.ids = {piece: FIRST_PIECE + place for place, piece in enumerate(pieces)}
        self._word_ids = lru_cache(maxsize=100_000)(self._encode_word)

    def __len__(self) -> int:
        return FIRST_PIECE + len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of *text*; the same ids llama.cpp gives (no space is put before the first word)."""
        return [token for word in split_words(text) for token in self._word_ids(word)]

    def _encode_word(self, word: str) -> tuple[int, ...]:
        parts = list(word)
        while len(parts) > 1:
            pairs = [(self.ids.get(a + b, 1 << 30), place) for place, (a, b) in enumerate(pairwise(parts))]
            best, place = min(pairs)
            if best == 1 << 30:
                break
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        ids: list[int] = []
        for part in parts:
            known = self.ids.get(part)
            ids.extend([known] if known is not None else [FIRST_BYTE + byte for byte in part.encode()])
        return tuple(ids)


def train_tokenizer(texts: Iterable[str], *, size: int) -> Tokenizer:
    """Merge the most frequent pair until there are *size* tokens; ties go to the pair that sorts first."""
    counts = Counter(word for text in texts for word in split_words(text))
    # Rare letters stay byte tokens; the printable ASCII ones are always pieces.
    alphabet = ["\u2581", *(chr(code) for code in range(33, 127))]
    words = {word: list(word) for word in counts if all(letter in alphabet for letter in word)}
    merged: list[str] = []
    while FIRST_PIECE + len(alphabet) + len(merged) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in words.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        if not pairs:
            break
        (left, right), count = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        if count < 2:
            break
        merged.append(left + right)
        for parts in words.values():
            place = 0
            while place < len(parts) - 1:
                if parts[place] == left and parts[place + 1] == right:
                    parts[place : place + 2] = [left + right]
                place += 1
    return Tokenizer(merged + alphabet)
