"""Headers of every answer of this dialect; on the hot path, so most of them are created once."""

import time

from comptoir.kit.http import Request

VERSION = (b"openai-version", b"2020-10-01")


def answer_headers(request: Request) -> list[tuple[bytes, bytes]]:
    """Return request id, time spent, and the caller's rate limit. There is no limit on tokens, so none is given."""
    elapsed_ms = (time.perf_counter() - request.started_s) * 1000
    made = [(b"x-request-id", request.id.encode()), (b"openai-processing-ms", b"%d" % elapsed_ms), VERSION]
    rate = request.rate
    if rate is not None:
        made += (
            (b"x-ratelimit-limit-requests", b"%d" % rate.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % rate.remaining),
            (b"x-ratelimit-reset-requests", duration(rate.reset_s)),
        )
    return made


def duration(seconds: float) -> bytes:
    """Format a time as OpenAI does: ``12ms``, ``1.5s``, ``1m30s``."""
    if seconds < 1:
        return b"%dms" % (seconds * 1000)
    if seconds < 60:
        return b"%gs" % round(seconds, 3)
    minutes, rest = divmod(int(seconds), 60)
    return b"%dm%ds" % (minutes, rest)
