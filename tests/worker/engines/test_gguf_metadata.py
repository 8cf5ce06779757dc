"""The head of a GGUF file, and which token a piece of text was."""

from pathlib import Path

import pytest

from comptoir.worker.engines.demo import MODEL
from comptoir.worker.engines.gguf_metadata import NotGguf, TokenBytes, read_metadata, token_bytes
from tests.worker.engines.gguf_edit import with_metadata


class TestReadMetadata:
    def test_reads_scalars_strings_and_arrays(self) -> None:
        metadata = read_metadata(MODEL)

        assert metadata["general.architecture"] == "llama"
        assert metadata["llama.context_length"] == 2048
        assert metadata["tokenizer.ggml.add_bos_token"] is True
        tokens, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
        assert isinstance(tokens, list)
        assert isinstance(scores, list)
        assert tokens[:3] == ["<unk>", "<s>", "</s>"]
        assert len(tokens) == len(scores)

    def test_sees_added_metadata(self, tmp_path: Path) -> None:
        path = with_metadata(MODEL, tmp_path / "m.gguf", {"llama.pooling_type": 1, "general.architecture": "other"})

        metadata = read_metadata(path)

        assert metadata["llama.pooling_type"] == 1
        assert metadata["general.architecture"] == "other"

    def test_another_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.gguf"
        path.write_bytes(b"hello, this is text")

        with pytest.raises(NotGguf, match="does not begin with GGUF"):
            read_metadata(path)

    @pytest.mark.parametrize("size", [5, 30, 400, 5000])
    def test_a_file_cut_short_is_refused(self, tmp_path: Path, size: int) -> None:
        path = tmp_path / "short.gguf"
        path.write_bytes(MODEL.read_bytes()[:size])

        with pytest.raises(NotGguf):
            read_metadata(path)


class TestTokenBytes:
    TABLE = TokenBytes([None, b"a", b"\xe4", b"\xbd", b"\xa0", b"\xbd\xa0", b"\xe4\xbd", b"hello", b"a"])

    def test_a_whole_text_names_its_token(self) -> None:
        assert self.TABLE.names("hello", 7)
        assert self.TABLE.id_of("hello") == 7
        assert self.TABLE.id_of("bye") is None

    def test_of_two_tokens_with_one_text_the_later_is_meant(self) -> None:
        assert self.TABLE.id_of("a") == 8
        assert not self.TABLE.names("a", 1)

    def test_names_the_fragments_of_a_character(self) -> None:
        assert self.TABLE.ids_of("\u4f60", last=4, count=3) == [2, 3, 4]
        assert self.TABLE.ids_of("\u4f60", last=4, count=2) == [6, 4]
        assert self.TABLE.ids_of("\u4f60", last=5, count=2) == [2, 5]

    def test_refuses_to_guess(self) -> None:
        """Two bytes in two tokens can be cut in one way only; what doesn't end with the last token in none."""
        assert self.TABLE.ids_of("\u4f60", last=1, count=2) is None
        assert self.TABLE.ids_of("\u4f60", last=4, count=4) is None

    def test_an_earlier_token_never_ends_a_character(self) -> None:
        assert self.TABLE.ids_of("a\u4f60", last=4, count=4) is None

    def test_byte_level_vocabularies_are_read(self) -> None:
        table = token_bytes(
            {
                "tokenizer.ggml.model": "gpt2",
                "tokenizer.ggml.tokens": ["!", "\u0120hello", "\u00e4\u00bd", "\u0142", "<|end|>"],
                "tokenizer.ggml.token_type": [1, 1, 1, 1, 3],
            }
        )

        assert table is not None
        assert table.id_of(" hello") == 1
        assert table.ids_of("\u4f60", last=3, count=2) == [2, 3]
        assert table.id_of("<|end|>") is None

    def test_other_vocabularies_have_no_table(self) -> None:
        assert (
            token_bytes({"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": [], "tokenizer.ggml.token_type": []})
            is None
        )
