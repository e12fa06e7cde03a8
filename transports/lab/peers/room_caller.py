"""A caller in a LiveKit room, on the official SDK: speaks WAV files, hears everyone, tells what it sees as JSON lines.

    LIVEKIT_URL=ws://… LIVEKIT_TOKEN=… room_caller.py --seconds 60 --record DIR hello.wav 1500 bye.wav

plays the files with 1.5 s between them. On stdin, one JSON object per line: {"play": "a.wav"}, {"pause": 500},
{"stop": true}, {"chat": "text"}, {"attributes": {…}}, {"dtmf": "5"}, {"data": "text", "topic": "t"}, {"mute": true},
{"rpc": "method", "to": "identity", "payload": "text"}, {"leave": true}. The end of stdin is a leave. Whether the caller
is a plain participant or one of kind SIP is the token's matter. Events: see `report` calls here and in sound.py.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

sys.dont_write_bytecode = True

from livekit import rtc  # noqa: E402

from commands import commands  # noqa: E402
from report import report  # noqa: E402
from sound import Gate, Microphone, listen  # noqa: E402

# the events of RFC 4733, by their numbers
DTMF_CODES = {digit: code for code, digit in enumerate("0123456789*#ABCD")}
# leaving is asked once and waited for so long; then the process ends all the same
LEAVE_SECONDS_MAX = 3


class Caller:
    """One participant."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._room = rtc.Room()
        self._microphone = Microphone()
        self._ears: dict[str, asyncio.Task] = {}
        self._readers: set[asyncio.Task] = set()
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Joins, speaks, hears and obeys, until told to leave, put out, or out of time."""
        options = self._options
        self._watch()
        await self._room.connect(options.url, options.token, rtc.RoomOptions(single_peer_connection=options.single_pc))
        report("joined", room=self._room.name, **about(self._room.local_participant))
        for participant in self._room.remote_participants.values():
            report("participant_joined", **about(participant))
        for part in options.script:
            self._microphone.pause(int(part)) if part.isdigit() else self._microphone.play(part)
        publish = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        publication = await self._room.local_participant.publish_track(self._microphone.track, publish)
        report("published", track=publication.sid)
        tasks = [asyncio.create_task(self._microphone.run()), asyncio.create_task(self._obey())]
        try:
            await asyncio.wait_for(self._over.wait(), options.seconds)
        except TimeoutError:
            report("error", reason=f"{options.seconds} s are over")
        await self._leave(tasks)

    async def _leave(self, tasks: list[asyncio.Task]) -> None:
        ears = list(self._ears.values())
        for task in [*tasks, *ears]:
            task.cancel()
        await asyncio.gather(*ears, return_exceptions=True)
        try:
            await asyncio.wait_for(self._room.disconnect(), LEAVE_SECONDS_MAX)
        except TimeoutError:
            report("error", reason="the server does not confirm the leave")
        report("left")

    async def _obey(self) -> None:
        async for command in commands():
            try:
                await self._do(command)
            except Exception as error:  # a command that fails is told, and the call goes on
                report("error", reason=f"{next(iter(command), '')}: {error}")
        self._over.set()

    async def _do(self, command: dict) -> None:
        me = self._room.local_participant
        match command:
            case {"play": path}:
                self._microphone.play(path)
            case {"pause": ms}:
                self._microphone.pause(ms)
            case {"stop": True}:
                self._microphone.stop()
            case {"chat": text}:
                await me.send_text(text, topic="lk.chat")
            case {"attributes": attributes}:
                await me.set_attributes(attributes)
            case {"dtmf": digit}:
                await me.publish_dtmf(code=DTMF_CODES[digit], digit=digit)
            case {"data": text, **rest}:
                await me.publish_data(text, reliable=True, topic=rest.get("topic", ""))
            case {"mute": muted}:
                self._microphone.track.mute() if muted else self._microphone.track.unmute()
            case {"rpc": method, "to": identity, **rest}:
                answer = await me.perform_rpc(
                    destination_identity=identity, method=method, payload=rest.get("payload", "")
                )
                report("rpc", method=method, answer=answer)
            case {"leave": True}:
                pass
            case _:
                raise ValueError("unknown command")

    def _watch(self) -> None:
        room = self._room
        room.on("participant_connected", lambda who: report("participant_joined", **about(who)))
        room.on("participant_disconnected", lambda who: report("participant_left", **about(who)))
        room.on("track_subscribed", self._subscribed)
        room.on("track_unsubscribed", self._unsubscribed)
        room.on("track_muted", lambda who, what: report("muted", identity=who.identity, track=what.sid, on=True))
        room.on("track_unmuted", lambda who, what: report("muted", identity=who.identity, track=what.sid, on=False))
        room.on(
            "participant_attributes_changed",
            lambda changed, who: report("attributes", identity=who.identity, attributes=dict(changed)),
        )
        room.on("data_received", self._data)
        room.on("sip_dtmf_received", lambda dtmf: report("dtmf", identity=sender(dtmf), digit=dtmf.digit))
        room.on("reconnecting", lambda: report("reconnecting"))
        room.on("reconnected", lambda: report("reconnected"))
        room.on("disconnected", self._disconnected)
        for topic in self._options.topics.split(","):
            room.register_text_stream_handler(topic, self._text)

    def _subscribed(self, track: rtc.Track, publication: rtc.TrackPublication, who: rtc.Participant) -> None:
        report("subscribed", identity=who.identity, track=track.sid, name=publication.name, mime=publication.mime_type)
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            gate = Gate(who.identity, track.sid, self._options.threshold_dbfs, self._options.gap_ms)
            ear = listen(track, who.identity, gate, self._options.record)
            self._ears[track.sid] = asyncio.create_task(ear)

    def _unsubscribed(self, track: rtc.Track, _publication: rtc.TrackPublication, who: rtc.Participant) -> None:
        report("unsubscribed", identity=who.identity, track=track.sid)
        if ear := self._ears.pop(track.sid, None):
            ear.cancel()

    def _data(self, packet: rtc.DataPacket) -> None:
        text = packet.data.decode("utf-8", "replace")
        report("data", identity=sender(packet), topic=packet.topic, text=text)

    def _disconnected(self, reason: int) -> None:
        report("disconnected", reason=rtc.DisconnectReason.Name(reason))
        self._over.set()

    def _text(self, reader: rtc.TextStreamReader, identity: str) -> None:
        task = asyncio.create_task(read_text(reader, identity))
        self._readers.add(task)  # asyncio itself keeps no task alive
        task.add_done_callback(self._readers.discard)


async def read_text(reader: rtc.TextStreamReader, identity: str) -> None:
    """Tells a text stream as it grows (`text_part`) and when it is whole (`text`)."""
    info, text = reader.info, ""
    fields = {"identity": identity, "topic": info.topic, "stream": info.stream_id}
    try:
        async for part in reader:
            text += part
            report("text_part", text=text, attributes=dict(info.attributes or {}), **fields)
    except ConnectionError as error:
        report("error", reason=f"text stream broken off: {error}")
        return
    attributes = dict(info.attributes or {})
    final = attributes.get("lk.transcription_final") == "true"
    report("text", text=text, final=final, attributes=attributes, **fields)


def about(participant: rtc.Participant) -> dict:
    """What a participant shows of itself."""
    kind = rtc.ParticipantKind.Name(participant.kind).removeprefix("PARTICIPANT_KIND_").lower()
    return {
        "identity": participant.identity,
        "sid": participant.sid,
        "name": participant.name,
        "kind": kind,
        "attributes": dict(participant.attributes),
    }


def sender(packet: rtc.DataPacket | rtc.SipDTMF) -> str | None:
    """Identity of who sent a packet; none when the server did."""
    return packet.participant.identity if packet.participant else None


def options() -> argparse.Namespace:
    """The command line; URL and token come through the environment, where no other user reads them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", nargs="*", help="WAV files to play and pauses in ms between them")
    parser.add_argument("--seconds", type=float, default=60, help="leaves after so long at the latest")
    parser.add_argument("--record", type=Path, help="folder for one WAV file per track heard")
    parser.add_argument("--threshold-dbfs", type=float, default=-45, help="what is louder is sound")
    parser.add_argument("--gap-ms", type=float, default=200, help="silence shorter than this belongs to the sound")
    parser.add_argument("--topics", default="lk.chat,lk.transcription", help="text streams that are read")
    parser.add_argument("--single-pc", action="store_true", help="one peer connection for both directions")
    parsed = parser.parse_args()
    parsed.url, parsed.token = os.environ["LIVEKIT_URL"], os.environ["LIVEKIT_TOKEN"]
    return parsed


async def main() -> int:
    """Runs the caller; 1 when it could not join."""
    try:
        await Caller(options()).run()
    except (rtc.ConnectError, OSError, ValueError) as error:
        report("error", reason=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    code = asyncio.run(main())
    sys.stdout.flush()
    os._exit(code)  # the SDK's native threads need not be waited for
