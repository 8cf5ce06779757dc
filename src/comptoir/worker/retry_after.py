"""Parsing ``Retry-After`` in all its common forms."""

import email.utils
import time
from collections.abc import Mapping

RETRY_AFTER_MAX_S = 3600.0
"""Longest Retry-After that is obeyed."""


def read_retry_after(headers: Mapping[str, str]) -> float:
    """Read ``retry-after-ms`` or ``Retry-After`` (seconds or a date) as seconds, 0 when absent or unreadable."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif (text := headers.get("Retry-After", "")).replace(".", "", 1).isdigit():
            seconds = float(text)
        elif text:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        else:
            seconds = 0.0
    except ValueError:
        return 0.0
    return min(max(0.0, seconds), RETRY_AFTER_MAX_S) if seconds == seconds else 0.0
