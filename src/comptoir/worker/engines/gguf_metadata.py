"""Read the head of a GGUF file: what the model is, how long its context is, and which bytes each token stands for.

Only the metadata is read, never the tensors. The format is described by ggml's docs/gguf.md.
"""

import mmap
import struct
from collections.abc import Sequence
from pathlib import Path

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_TOKEN_BYTE, _TOKEN_CONTROL, _TOKEN_UNKNOWN = 6, 3, 2
_FRAGMENT_BYTES_MAX = 16
"""Longest run of bytes cut into tokens; a character has four bytes, and one token may close one and open the next."""

Value = int | float | bool | str | list["Value"]


class NotGguf(Exception):
    """The file is no GGUF of version 2 or 3, or its head is cut short."""


def read_metadata(path: Path) -> dict[str, Value]:
    """Return every key of the file's head.

    Raises:
        OSError: the file can't be read.
        NotGguf: it is something else, or damaged.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise NotGguf(f"{path.name} does not begin with GGUF")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _GgufReader(data).head()
            except (struct.error, UnicodeDecodeError, KeyError, MemoryError) as error:
                raise NotGguf(f"{path.name}: its metadata can't be read ({error})") from error


class _GgufReader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 4

    def head(self) -> dict[str, Value]:
        version = self.scalar("<I")
        if version not in (2, 3):
            raise NotGguf(f"GGUF version {version} is not supported, only 2 and 3")
        self.scalar("<Q")  # how many tensors
        values: dict[str, Value] = {}
        for _ in range(int(self.scalar("<Q"))):
            key = self.string()
            values[key] = self.value(int(self.scalar("<I")))
        return values

    def scalar(self, form: str) -> int | float | bool:
        value: int | float | bool = struct.unpack_from(form, self.data, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def string(self) -> str:
        length = int(self.scalar("<Q"))
        if length > len(self.data) - self.at:
            raise NotGguf("a string reaches past the end of the file")
        text = self.data[self.at : self.at + length].decode("utf-8", "replace")
        self.at += length
        return text

    def value(self, kind: int) -> Value:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.scalar(_SCALARS[kind])
        inner, count = int(self.scalar("<I")), int(self.scalar("<Q"))
        if count > len(self.data):
            raise NotGguf("an array reaches past the end of the file")
        if inner in (_STRING, _ARRAY):
            return [self.value(inner) for _ in range(count)]
        form = f"<{count}{_SCALARS[inner][1]}"
        values = list(struct.unpack_from(form, self.data, self.at))
        self.at += struct.calcsize(form)
        return values


class TokenBytes:
    """Which bytes each token id stands for, and back."""

    def __init__(self, pieces: Sequence[bytes | None]) -> None:
        """*pieces* by id; None for tokens that never are text (control tokens)."""
        self._pieces = pieces
        self._ids: dict[bytes, int] = {}
        for token, piece in enumerate(pieces):
            if piece:
                self._ids[piece] = token  # The later one wins: a piece for a letter stands after its byte token.
        self._by_text = {piece.decode(): token for piece, token in self._ids.items() if _is_whole(piece)}

    def names(self, text: str, token: int) -> bool:
        """Return whether *text* alone tells that it was *token*."""
        return self._by_text.get(text) == token

    def id_of(self, text: str) -> int | None:
        """Return the token that *text* as a whole is, None if there is none."""
        return self._by_text.get(text)

    def ids_of(self, text: str, *, last: int, count: int) -> list[int] | None:
        """Return the *count* tokens that made *text*, the last of which is *last*, when there is exactly one way.

        A text of several tokens is one whose earlier tokens end inside a character (that is why it was held back).
        """
        data, tail = text.encode(), self._pieces[last]
        if not tail or not data.endswith(tail) or len(data) > _FRAGMENT_BYTES_MAX:
            return None
        ways = self._cuts(data[: len(data) - len(tail)], 0, count - 1)
        return [*ways[0], last] if len(ways) == 1 else None

    def _cuts(self, data: bytes, start: int, count: int) -> list[list[int]]:
        if count == 0:
            return [[]] if start == len(data) else []
        found: list[list[int]] = []
        for end in range(start + 1, len(data) - count + 2):
            token = self._ids.get(data[start:end])
            if token is not None and not _is_whole(data[:end]):
                found.extend([token, *rest] for rest in self._cuts(data, end, count - 1))
        return found


def _is_whole(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def token_bytes(metadata: dict[str, Value]) -> TokenBytes | None:
    """Return the table of a file's tokens; None for tokenizers whose pieces we can't read (WordPiece, RWKV…)."""
    tokens, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list) or not isinstance(types, list) or len(tokens) != len(types):
        return None
    words = [str(token) for token in tokens]
    kinds = [int(kind) for kind in types if isinstance(kind, int)]
    model = metadata.get("tokenizer.ggml.model")
    if model == "llama":
        return TokenBytes([_spm_piece(word, kind) for word, kind in zip(words, kinds, strict=True)])
    if model == "gpt2":
        letters = _byte_letters()
        return TokenBytes([_bpe_piece(word, kind, letters) for word, kind in zip(words, kinds, strict=True)])
    return None


def _spm_piece(word: str, kind: int) -> bytes | None:
    if kind in (_TOKEN_CONTROL, _TOKEN_UNKNOWN):
        return None
    if kind == _TOKEN_BYTE:
        return bytes([int(word[3:5], 16)])
    return word.replace("\u2581", " ").encode()


def _bpe_piece(word: str, kind: int, letters: dict[str, int]) -> bytes | None:
    if kind in (_TOKEN_CONTROL, _TOKEN_UNKNOWN):
        return None
    if all(letter in letters for letter in word):
        return bytes(letters[letter] for letter in word)
    return word.encode()


def _byte_letters() -> dict[str, int]:
    """Byte-level BPE writes each byte as a visible letter: printable Latin-1 as itself, the rest from U+0100 up."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in shown}
    hidden = [byte for byte in range(256) if byte not in shown]
    return letters | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}
