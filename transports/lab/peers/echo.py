"""An echo in LiveKit rooms, on the official SDK: gives each track back as it comes. What ours is measured against.

    LIVEKIT_URL=ws://… LIVEKIT_TOKEN="token token …" echo.py --seconds 60

joins one room per token, all in this process. On stdin, {"usage": true} asks for a `usage` event (CPU and wall time since the
start, memory now and at most), so that a bench can take the difference over its own interval; the end of stdin ends it.
`started` tells the memory before the first room.
"""

import argparse
import asyncio
import os
import resource
import sys

sys.dont_write_bytecode = True

from livekit import rtc  # noqa: E402

from commands import commands  # noqa: E402
from report import now_ms, report  # noqa: E402

RATE = 48_000
# the SDK's own pace: it takes and gives 10 ms, and with no queue a frame goes straight through
FRAME_MS = 10
QUEUE_MS = 0


class Echo:
    """One participant in one room."""

    def __init__(self) -> None:
        self._room = rtc.Room()
        self._tasks: dict[str, asyncio.Task] = {}
        self.frames = 0

    async def join(self, url: str, token: str) -> None:
        """Joins; from then on what is subscribed is echoed."""
        self._room.on("track_subscribed", self._subscribed)
        self._room.on("track_unsubscribed", self._unsubscribed)
        await self._room.connect(url, token)
        report("joined", room=self._room.name, identity=self._room.local_participant.identity)

    async def leave(self) -> None:
        """Leaves."""
        for task in self._tasks.values():
            task.cancel()
        await self._room.disconnect()

    def _subscribed(self, track: rtc.Track, _publication: rtc.TrackPublication, who: rtc.Participant) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            report("subscribed", room=self._room.name, identity=who.identity, track=track.sid)
            self._tasks[track.sid] = asyncio.create_task(self._echo(track))

    def _unsubscribed(self, track: rtc.Track, _publication: rtc.TrackPublication, who: rtc.Participant) -> None:
        if task := self._tasks.pop(track.sid, None):
            report("unsubscribed", room=self._room.name, identity=who.identity, track=track.sid)
            task.cancel()

    async def _echo(self, track: rtc.Track) -> None:
        source = rtc.AudioSource(RATE, 1, queue_size_ms=QUEUE_MS)
        mine = rtc.LocalAudioTrack.create_audio_track("echo", source)
        publish = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        # it stays published when who is echoed leaves: a silent track costs nothing, and nobody is left to hear it
        await self._room.local_participant.publish_track(mine, publish)
        async for event in rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=FRAME_MS):
            await source.capture_frame(event.frame)
            self.frames += 1


def resident_kb() -> int:
    """Memory in use now."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() // 1024


def usage(echoes: list[Echo]) -> None:
    """Tells what this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    report(
        "usage",
        rooms=len(echoes),
        cpu_ms=round((used.ru_utime + used.ru_stime) * 1000),
        wall_ms=round(now_ms()),
        rss_kb=resident_kb(),
        rss_max_kb=used.ru_maxrss,
        echoed_ms=sum(echo.frames for echo in echoes) * FRAME_MS,
    )


async def serve(echoes: list[Echo]) -> None:
    """Tells the usage when asked, until told to leave."""
    async for command in commands():
        if not command.get("leave"):
            usage(echoes)


async def main() -> int:
    """Echoes until its time is over; 1 when a room could not be joined."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="leaves after so long at the latest")
    seconds = parser.parse_args().seconds
    url, tokens = os.environ["LIVEKIT_URL"], os.environ["LIVEKIT_TOKEN"].split()
    echoes = [Echo() for _ in tokens]
    report("started", rss_kb=resident_kb())
    try:
        for echo, token in zip(echoes, tokens, strict=True):
            await echo.join(url, token)
        await asyncio.wait_for(serve(echoes), seconds)
    except TimeoutError:
        pass
    except rtc.ConnectError as error:
        report("error", reason=f"{type(error).__name__}: {error}")
        return 1
    usage(echoes)
    await asyncio.wait([asyncio.create_task(echo.leave()) for echo in echoes], timeout=3)
    report("left")
    return 0


if __name__ == "__main__":
    code = asyncio.run(main())
    sys.stdout.flush()
    os._exit(code)  # the SDK's native threads need not be waited for
