"""What a peer says and hears: a microphone that plays WAV files, and an ear that records a track and reports when it sounds."""

import asyncio
import math
import re
import wave
from collections import deque
from pathlib import Path

import numpy as np
from livekit import rtc

from report import now_ms, report

RATE = 48_000
WINDOW_MS = 20
WINDOW_SAMPLES = RATE * WINDOW_MS // 1000
# sound that waits in the SDK: enough that a busy machine does not starve it, little enough that "playing" is true
QUEUE_MS = 60
FULL_SCALE = 32768.0


class Microphone:
    """A track that is silent, or plays what was queued, one after another."""

    def __init__(self) -> None:
        self._source = rtc.AudioSource(RATE, 1, queue_size_ms=QUEUE_MS)
        self._clips: deque[tuple[str | None, np.ndarray]] = deque()
        self.track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)

    def play(self, path: str) -> None:
        """Queues a WAV file of 16 bit, any rate, whose first channel counts."""
        self._clips.append((path, read_wav(path)))

    def pause(self, ms: int) -> None:
        """Queues silence."""
        self._clips.append((None, np.zeros(RATE * ms // 1000, np.int16)))

    def stop(self) -> None:
        """Falls silent at once: drops what is playing and what was queued."""
        self._clips.clear()
        self._source.clear_queue()

    async def run(self) -> None:
        """Feeds the track in real time, for ever; the SDK's queue sets the pace."""
        position = 0
        while True:
            window = np.zeros(WINDOW_SAMPLES, np.int16)
            if not self._clips:
                position = 0
            else:
                name, samples = self._clips[0]
                if position == 0 and name:
                    report("playing", at_ms=self._out_ms(), file=name, ms=len(samples) * 1000 // RATE)
                part = samples[position : position + WINDOW_SAMPLES]
                window[: len(part)] = part
                position += WINDOW_SAMPLES
                if position >= len(samples):
                    self._clips.popleft()
                    position = 0
                    if name:
                        report("played", at_ms=self._out_ms() + WINDOW_MS, file=name)
            await self._source.capture_frame(rtc.AudioFrame(window.tobytes(), RATE, 1, WINDOW_SAMPLES))

    def _out_ms(self) -> float:
        # when what is captured now leaves the SDK's queue
        return now_ms() + self._source.queued_duration * 1000


def read_wav(path: str) -> np.ndarray:
    """A WAV file's first channel at 48 kHz."""
    with wave.open(path, "rb") as file:
        if file.getsampwidth() != 2:
            raise ValueError(f"{path} is not 16 bit")
        rate, channels = file.getframerate(), file.getnchannels()
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)[::channels]
    if rate == RATE:
        return samples
    resampler = rtc.AudioResampler(rate, RATE, quality=rtc.AudioResamplerQuality.HIGH)
    frames = resampler.push(bytearray(samples.tobytes())) + resampler.flush()
    return np.concatenate([np.frombuffer(frame.data, np.int16) for frame in frames] or [np.zeros(0, np.int16)])


class Gate:
    """Tells sound from silence by the energy of 20 ms windows; a pause shorter than the gap belongs to the sound."""

    def __init__(self, identity: str, track: str, threshold_dbfs: float, gap_ms: float) -> None:
        self._names = {"identity": identity, "track": track}
        self._threshold, self._gap_ms = threshold_dbfs, gap_ms
        self._on = False
        self._last_loud_ms = 0.0
        self._powers: list[float] = []

    def hear(self, samples: np.ndarray, end_ms: float) -> None:
        """A window whose last sample was heard at `end_ms`."""
        power = float(np.mean((samples / FULL_SCALE) ** 2)) if len(samples) else 0.0
        if dbfs(power) >= self._threshold:
            self._last_loud_ms = end_ms
            self._powers.append(power)
            if not self._on:
                self._on = True
                report("sound", at_ms=end_ms - WINDOW_MS, on=True, **self._names)
        elif self._on and end_ms - self._last_loud_ms >= self._gap_ms:
            self.close()

    def close(self) -> None:
        """Ends a sound that is on, at its last loud window."""
        if self._on:
            level = round(dbfs(sum(self._powers) / len(self._powers)), 1)
            report("sound", at_ms=self._last_loud_ms, on=False, dbfs=level, **self._names)
        self._on = False
        self._powers.clear()


def dbfs(power: float) -> float:
    """Level of a mean square, in dB of full scale."""
    return 10 * math.log10(power + 1e-12)


async def listen(track: rtc.Track, identity: str, gate: Gate, record: Path | None) -> None:
    """Hears a track until it ends, and keeps it as 48 kHz mono 16 bit."""
    path = record / f"{re.sub(r'[^A-Za-z0-9_-]', '_', identity)}-{track.sid}.wav" if record else None
    file = wave.open(str(path), "wb") if path else None
    if file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
    stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=WINDOW_MS)
    started_ms, heard = None, 0
    try:
        async for event in stream:
            samples = np.frombuffer(event.frame.data, np.int16)
            if started_ms is None:
                started_ms = now_ms() - WINDOW_MS
            heard += len(samples)
            gate.hear(samples, now_ms())
            if file:
                file.writeframes(samples.tobytes())
    except asyncio.CancelledError:
        pass  # the peer leaves: what was heard is still kept and told
    finally:
        gate.close()
        if file:
            file.close()
        fields = {"identity": identity, "track": track.sid, "ms": heard * 1000 // RATE}
        report("heard", file=path and str(path), started_ms=started_ms and round(started_ms, 1), **fields)
