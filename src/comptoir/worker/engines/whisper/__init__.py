"""The engine ``whisper``: speech written down or translated by faster-whisper, from sound that the sandbox decoded."""

from comptoir.worker.engines.whisper.engine import WhisperEngine

__all__ = ["WhisperEngine"]
