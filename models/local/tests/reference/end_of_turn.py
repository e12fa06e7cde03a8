"""Writes tests/end_of_turn.golden.json: what the reference pipeline makes of sounds that both sides compute.

Run inside an unpacked wheel of pipecat-ai 1.14.0, with numpy and onnxruntime 1.31.1 installed:
    python end_of_turn.py PATH_OF_UNPACKED_WHEEL > ../end_of_turn.golden.json

The sounds are formulas over integers (see `sound`), computed likewise in tests/end_of_turn.rs, so no recording is
kept. The probability comes with the features at a sample of places and the means of rows and columns.
"""

import importlib.util
import json
import pathlib
import sys

import numpy as np
import onnxruntime

SMART_TURN = pathlib.Path(sys.argv[1]) / "pipecat/audio/turn/smart_turn"
SPAN = 128_000
# blocks of 10 ms: one, a short word, the lengths around a full span, and beyond it
BLOCKS = [1, 37, 180, 400, 798, 799, 800, 801, 1234]


def sound(samples):
    """Bursts of a gliding tone with its overtones, breath noise from an LCG, and an offset; 16-bit steps."""
    out = np.empty(samples, dtype=np.float32)
    state, phase = 12345, 0
    for i in range(samples):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        noise = (state >> 16) - 32768
        # a saw between 90 and 218 Hz as a 32-bit phase, and syllables of 200 ms with pauses
        phase = (phase + 24_159_191 + (i % 8_000) * 4_295) & 0xFFFFFFFF
        saw = (phase >> 16) - 32768
        syllable = (i // 3_200) % 4
        loud = (0, 9, 5, 12)[syllable]
        out[i] = ((saw * loud) // 32 + (noise * (1 + loud)) // 256 + 150) / 32768
    return out


def main():
    spec = importlib.util.spec_from_file_location("features", SMART_TURN / "_whisper_features.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(SMART_TURN / "data/smart-turn-v3.2-cpu.onnx"), options)

    whole = sound(max(BLOCKS) * 160)
    cases = []
    for blocks in BLOCKS:
        audio = whole[: blocks * 160][-SPAN:]
        audio = np.pad(audio, (SPAN - len(audio), 0))
        features = reference.compute_whisper_log_mel_features(audio)
        probability = session.run(None, {"input_features": features[None]})[0].item()
        frames = sorted({0, 1, 2, 3, 400, 796, 797, 798, 799} | {max(0, 800 - blocks + d) for d in (-2, -1, 0, 1)} & set(range(800)))
        mels = [0, 1, 2, 3, 20, 47, 79]
        cases.append({
            "blocks": blocks,
            "probability": round(probability, 6),
            "frame_means": [round(float(m), 6) for m in features.mean(axis=0)[::8]],
            "mel_means": [round(float(m), 6) for m in features.mean(axis=1)],
            "places": [[m, f, round(float(features[m, f]), 6)] for f in frames for m in mels],
        })
    json.dump(cases, sys.stdout, separators=(",", ":"))
    print()


main()
