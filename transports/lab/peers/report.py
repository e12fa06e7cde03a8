"""One JSON line per event on stdout, stamped twice: ms since the start on the monotonic clock, and wall clock.

The first orders what one peer saw; the second compares peers on one machine.
"""

import json
import time

_START = time.monotonic()


def now_ms() -> float:
    """Milliseconds since this process looked at the clock first."""
    return (time.monotonic() - _START) * 1000


def report(event: str, at_ms: float | None = None, **fields: object) -> None:
    """Prints an event that happens now, or happened at `at_ms`."""
    now = now_ms()
    at_ms = now if at_ms is None else at_ms
    unix_ms = time.time() * 1000 - (now - at_ms)
    line = {"event": event, "at_ms": round(at_ms, 1), "unix_ms": round(unix_ms, 1), **fields}
    print(json.dumps(line, ensure_ascii=False), flush=True)
