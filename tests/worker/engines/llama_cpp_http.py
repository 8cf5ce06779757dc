"""llama.cpp's own HTTP server with the demo model, as somebody would run it: nothing of our in-process engine around
it."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import xllamacpp

from comptoir.worker.engines.demo import MODEL


@contextmanager
def serve_llama_cpp() -> Iterator[tuple[str, str]]:
    """Run it on a free loopback port; gives its address and its key."""
    params = xllamacpp.CommonParams()
    params.model.path = str(MODEL)
    params.model_alias = {"real"}
    params.n_ctx = 4096
    params.n_parallel = 2
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.api_keys = [key := secrets.token_urlsafe(8)]
    params.ui = params.endpoint_slots = params.warmup = False
    params.verbosity = params.cache_ram_mib = 0
    server: Any = xllamacpp.Server(params)
    try:
        yield str(server.listening_address), key
    finally:
        del server
