"""The process that hears: it loads one model, then is given pieces of sound and says what is in them.

Its own program, ``python -m comptoir.worker.engines.whisper.listener FOLDER DEVICE COMPUTE THREADS``. A `Piece` is a
line of JSON on standard input, followed by its samples; what it says are `Said`, lines of JSON on standard output. It
gets sound that the sandbox decoded and values that were checked; it opens no file but the model's, and fetches nothing.
"""

import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import ctranslate2
import msgspec
import numpy
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import restore_speech_timestamps
from faster_whisper.vad import VadOptions, collect_chunks, get_speech_timestamps

from comptoir.kinds.whisper.order import PROMPT_TOKENS_MAX
from comptoir.worker.engines.whisper.protocol import SAMPLE_BYTES, SAMPLE_RATE, Piece, Said

SILENT_PEAK = 4 / 32_768
"""Sound that is nowhere louder is none: the rounding of an encoder."""
FALLBACK_STEP = 0.2


class Ears:
    """One model, and what it hears."""

    def __init__(self, folder: str, *, device: str, compute: str, threads: int) -> None:
        if device == "auto":
            device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        able = ctranslate2.get_supported_compute_types(device)
        if compute == "auto":
            compute = next(
                each for each in (("float16",) if device == "cuda" else ("int8",)) + ("float32",) if each in able
            )
        self.about: dict[str, Any] = {"device": device, "compute": compute}
        self.model = WhisperModel(
            folder, device=device, compute_type=compute, cpu_threads=threads, local_files_only=True
        )
        self.about["multilingual"] = bool(self.model.model.is_multilingual)
        self.tokens = self.model.hf_tokenizer.get_vocab_size(with_added_tokens=True)

    def hear(self, piece: Piece, audio: "numpy.ndarray[Any, Any]") -> Iterator[Said]:
        """Yield what is in a piece."""
        if refused := self._refused(piece):
            yield Said(refused=refused)
            return
        chunks = None
        if audio.size and numpy.abs(audio).max() <= SILENT_PEAK:
            audio = audio[:0]
        if audio.size and piece.vad:
            chunks = get_speech_timestamps(audio, VadOptions())
            # Without speech there is one chunk, of no sound.
            audio = numpy.concatenate(collect_chunks(audio, chunks)[0], axis=0)
        if audio.size:
            segments, info = self.model.transcribe(audio, **self._options(piece))
            yield Said(language=info.language, probability=float(info.language_probability))
            if chunks:
                segments = restore_speech_timestamps(segments, chunks, SAMPLE_RATE)
            for segment in segments:
                yield Said(segment=plain(segment))
        yield Said(done=True)

    def _refused(self, piece: Piece) -> str:
        beyond = [token for token in piece.suppress_tokens if token >= self.tokens]
        if beyond:
            return f"suppress_tokens: {beyond[0]} is none of this model's {self.tokens} tokens"
        if piece.prompt and piece.whole_prompt:
            tokenizer = Tokenizer(self.model.hf_tokenizer, False)
            count = len(tokenizer.encode(" " + piece.prompt.strip()))
            if count > PROMPT_TOKENS_MAX:
                return f"initial_prompt: has {count} tokens, and {PROMPT_TOKENS_MAX} are heard; it is not cut"
        return ""

    def _options(self, piece: Piece) -> dict[str, Any]:
        first, steps = piece.temperature, int((1.0 - piece.temperature) / FALLBACK_STEP + 1e-6)
        return {
            "language": piece.language or None,
            "task": piece.task,
            "temperature": [round(first + step * FALLBACK_STEP, 6) for step in range(steps + 1)],
            "best_of": piece.best_of,
            "beam_size": piece.beam_size,
            "patience": piece.patience or 1.0,
            "suppress_tokens": list(piece.suppress_tokens),
            "initial_prompt": piece.prompt or None,
            "condition_on_previous_text": piece.conditioned,
            "word_timestamps": piece.words,
        }


def plain(segment: Any) -> dict[str, Any]:
    """Return a segment of faster-whisper in plain numbers."""
    words = segment.words
    return {
        "start": float(segment.start),
        "end": float(segment.end),
        "text": segment.text,
        "tokens": [int(token) for token in segment.tokens],
        "temperature": float(segment.temperature),
        "avg_logprob": float(segment.avg_logprob),
        "compression_ratio": float(segment.compression_ratio),
        "no_speech_prob": float(segment.no_speech_prob),
        "words": None
        if words is None
        else [[word.word, float(word.start), float(word.end), float(word.probability)] for word in words],
    }


def read_pieces(source: BinaryIO, pieces: "queue.SimpleQueue[tuple[Piece, bytes]]") -> None:
    """Put what comes into *pieces*; ends the process with *source*, whatever it hears then: its worker is gone."""
    while line := source.readline():
        piece = msgspec.json.decode(line, type=Piece)
        pieces.put((piece, source.read(piece.samples * SAMPLE_BYTES)))
    os._exit(0)


def main(arguments: list[str]) -> None:
    """Load the model, and hear until standard input ends."""
    folder, device, compute, threads = arguments
    said = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # Whatever a library prints goes to the log.
    encode = msgspec.json.Encoder().encode
    ears = Ears(folder, device=device, compute=compute, threads=int(threads))
    said.write(encode(Said(ready=ears.about)) + b"\n")
    pieces: queue.SimpleQueue[tuple[Piece, bytes]] = queue.SimpleQueue()
    threading.Thread(target=read_pieces, args=(sys.stdin.buffer, pieces), daemon=True).start()
    while True:
        piece, samples = pieces.get()
        audio = numpy.frombuffer(samples, "<i2").astype(numpy.float32) / 32_768
        for each in ears.hear(piece, audio):
            said.write(encode(each) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
