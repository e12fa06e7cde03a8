"""Commands for a peer: one JSON object per line on stdin. The end of stdin is a command to leave, so no peer outlives who started it."""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator

from report import report

# a longer line is no command of ours
LINE_BYTES_MAX = 1 << 20


async def commands() -> AsyncIterator[dict]:
    """Each command as it comes; the last is `{"leave": true}`."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[dict] = asyncio.Queue()
    # a thread, since asyncio reads neither files nor /dev/null
    threading.Thread(target=_read, args=(loop, queue), daemon=True).start()
    while True:
        command = await queue.get()
        yield command
        if command.get("leave"):
            return


def _read(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue) -> None:
    while line := sys.stdin.buffer.readline(LINE_BYTES_MAX):
        try:
            command = json.loads(line)
            if not isinstance(command, dict):
                raise ValueError("not an object")
        except ValueError as error:
            report("error", reason=f"bad command: {error}")
            continue
        loop.call_soon_threadsafe(queue.put_nowait, command)
    loop.call_soon_threadsafe(queue.put_nowait, {"leave": True})
