"""Weights: those in the usual cache are found, checked by their hash, and looked into; nothing is fetched."""

import hashlib
from pathlib import Path

import pytest

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.whisper.weights import cached, find_weights, layers
from tests.worker.engines.whisper.conftest import tiny


def hub(folder: Path, model: str, source: Path, *, kept_as: str = "") -> None:
    """Lay a model down as huggingface_hub does: snapshots of links to blobs, large ones under their SHA-256."""
    repository = folder / f"models--{model.replace('/', '--')}"
    snapshot, blobs = repository / "snapshots" / "abc", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in source.iterdir():
        content = file.read_bytes()
        large = file.name == "model.bin"
        name = (kept_as or hashlib.sha256(content).hexdigest()) if large else hashlib.sha1(content).hexdigest()
        (blobs / name).write_bytes(content)
        (snapshot / file.name).symlink_to(blobs / name)


class TestCached:
    def test_finds_the_models_of_faster_whisper_by_what_they_are_called(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        for model in (
            "Systran/faster-whisper-base",
            "x/faster-whisper-large-v3-turbo-ct2",
            "Systran/faster-distil-whisper-small.en",
            "openai/whisper-base",
        ):
            hub(tmp_path, model, tiny("tiny"))

        assert [name for name, _ in cached()] == [
            "whisper-distil-small.en",
            "whisper-base",
            "whisper-large-v3-turbo",
        ]
        (weights, *_) = [each for each in find_weights({}) if each.name == "whisper-base"]
        assert weights.sha256 == hashlib.sha256((tiny("tiny") / "model.bin").read_bytes()).hexdigest()

    def test_a_broken_one_is_not_sold(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        hub(tmp_path, "Systran/faster-whisper-base", tiny("tiny"), kept_as="0" * 64)
        with pytest.raises(EngineError, match="is broken: its SHA-256"):
            find_weights({})

    def test_half_a_download_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        hub(tmp_path, "Systran/faster-whisper-base", tiny("tiny"))
        next(tmp_path.glob("*/snapshots/abc/tokenizer.json")).unlink()

        assert list(cached()) == []
        with pytest.raises(EngineError, match=r"has no tokenizer\.json"):
            find_weights({"a": str(next(tmp_path.glob("*/snapshots/abc")))})


class TestLayers:
    @pytest.mark.parametrize(("model", "depth"), [("tiny", (1, 1)), ("turbo", (2, 1))])
    def test_are_counted_by_name(self, model: str, depth: tuple[int, int]) -> None:
        with (tiny(model) / "model.bin").open("rb") as file:
            assert layers(file) == depth

    def test_another_file_is_none(self, tmp_path: Path) -> None:
        folder = tmp_path / "m"
        folder.mkdir()
        for name in ("model.bin", "config.json", "tokenizer.json"):
            (folder / name).write_bytes(b"GGUF and no more")
        with pytest.raises(EngineError, match="no model that can be used"):
            find_weights({"a": str(folder)})
