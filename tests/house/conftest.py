"""The rules keep the syntax trees of all files, 700,000 objects: looking for garbage among them took half of the
time."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def no_garbage() -> Iterator[None]:
    """Have Python not look for garbage."""
    gc.disable()
    yield
    gc.enable()
