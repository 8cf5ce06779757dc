"""OpenAI's API as its clients rely on it: chat completions, completions, embeddings, models."""

from comptoir.dialects.openai.routes import DIALECT

__all__ = ["DIALECT"]
