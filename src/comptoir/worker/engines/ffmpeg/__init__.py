"""The engine ``ffmpeg``: films and sound made into other formats, by this machine's ffmpeg, in the sandbox."""

from comptoir.worker.engines.ffmpeg.engine import FfmpegEngine

__all__ = ["FfmpegEngine"]
