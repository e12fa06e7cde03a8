//! Recordings: the caller on the left, the agent on the right, 16-bit WAV at 16 kHz.
//!
//! Packets of both sides come as the call sees them, on clocks of their own. Each is laid down where its side's sound has
//! come to, or at the moment it came when that is far off: so a side that pauses leaves silence and neither drifts. What
//! lies [`LAG`] back is written. The writing thread is this file's; a disk that is slow loses sound, not the call.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use voiced_core::codec::opus::{DECODED_LEN_MAX, OpusDecoder};
use voiced_core::codec::{mulaw_decode, sample_from_f32};
use voiced_core::frame::Rate;
use voiced_core::packet::{Codec, PACKET_BYTES_MAX, Packet};
use voiced_core::resample::Resampler;

use crate::call::Side;

/// Packets that may wait for the disk: 5 s of both sides.
const WAITING_MAX: usize = 512;
/// Sound is written this long after its moment, when nothing can come for it any more.
const LAG: Duration = Duration::from_millis(500);
/// A packet this far from where its side's sound has come to begins anew at its own moment.
const APART: usize = samples(Duration::from_millis(120));
const HZ: usize = Rate::Hz16000.hz() as usize;

const fn samples(time: Duration) -> usize {
    time.as_millis() as usize * HZ / 1_000
}

/// Where a call's sound goes while it is recorded. Dropping it ends the recording.
pub struct Recorder {
    packets: mpsc::Sender<(Side, Instant, Packet)>,
}

impl Recorder {
    /// Begins a recording in this file.
    pub fn start(path: &Path) -> Result<Self> {
        let spec = hound::WavSpec { channels: 2, sample_rate: HZ as u32, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
        let named = || format!("cannot write the recording {}", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(named)?;
        }
        let file = hound::WavWriter::create(path, spec).with_context(named)?;
        let (packets, waiting) = mpsc::channel(WAITING_MAX);
        let path = path.to_owned();
        std::thread::Builder::new().name("recording".into()).spawn(move || write(file, waiting, &path))?;
        Ok(Self { packets })
    }

    /// Takes a packet; false when the recording is over.
    pub fn take(&self, side: Side, packet: &Packet) -> bool {
        !matches!(self.packets.try_send((side, Instant::now(), *packet)), Err(mpsc::error::TrySendError::Closed(_)))
    }
}

fn write(mut file: hound::WavWriter<std::io::BufWriter<std::fs::File>>, mut packets: mpsc::Receiver<(Side, Instant, Packet)>, path: &Path) {
    let mut tape = Tape::new(Instant::now());
    let mut written = Ok(());
    while let Some((side, at, packet)) = packets.blocking_recv() {
        tape.lay(side, at, &packet);
        written = tape.roll(samples(at.saturating_duration_since(tape.began).saturating_sub(LAG)), &mut file);
        if written.is_err() {
            break;
        }
    }
    let whole = tape.end();
    let written = written.and_then(|()| tape.roll(whole, &mut file)).and_then(|()| file.finalize());
    match written {
        Ok(()) => tracing::info!(path = %path.display(), seconds = whole / HZ, "recording complete"),
        Err(error) => tracing::error!(path = %path.display(), %error, "the recording is cut short"),
    }
}

/// Both sides' sound that is not written yet.
struct Tape {
    began: Instant,
    /// Samples written.
    rolled: usize,
    tracks: [Track; 2],
}

#[derive(Default)]
struct Track {
    opus: Option<OpusDecoder>,
    from_phone: Option<Resampler>,
    /// Where the next sample goes, in samples since the beginning.
    at: usize,
    /// Samples from [`Tape::rolled`] on.
    sound: Vec<i16>,
}

impl Tape {
    fn new(began: Instant) -> Self {
        Self { began, rolled: 0, tracks: Default::default() }
    }

    fn lay(&mut self, side: Side, at: Instant, packet: &Packet) {
        let track = &mut self.tracks[side as usize];
        let sound = track.decode(packet);
        // a packet comes when its sound is over
        let moment = samples(at.saturating_duration_since(self.began)).saturating_sub(sound.len()).max(self.rolled);
        if track.at.abs_diff(moment) > APART || track.at < self.rolled {
            track.at = moment;
        }
        let from = track.at - self.rolled;
        let to = from + sound.len();
        if track.sound.len() < to {
            track.sound.resize(to, 0);
        }
        track.sound[from..to].copy_from_slice(&sound);
        track.at += sound.len();
    }

    fn end(&self) -> usize {
        self.rolled + self.tracks.iter().map(|track| track.sound.len()).max().unwrap_or(0)
    }

    /// Writes what lies before `to`.
    fn roll(&mut self, to: usize, file: &mut hound::WavWriter<std::io::BufWriter<std::fs::File>>) -> Result<(), hound::Error> {
        let count = to.saturating_sub(self.rolled);
        for index in 0..count {
            for track in &self.tracks {
                file.write_sample(track.sound.get(index).copied().unwrap_or(0))?;
            }
        }
        for track in &mut self.tracks {
            track.sound.drain(..count.min(track.sound.len()));
        }
        self.rolled += count;
        Ok(())
    }
}

impl Track {
    /// The packet's sound; nothing where it cannot be decoded.
    fn decode(&mut self, packet: &Packet) -> Vec<i16> {
        let mut sound = vec![0.0; DECODED_LEN_MAX];
        let len = match packet.codec {
            Codec::Mulaw => {
                let mut narrow = [0.0; PACKET_BYTES_MAX];
                let len = mulaw_decode(packet.payload(), &mut narrow);
                let resampler = self.from_phone.get_or_insert_with(|| Resampler::new(Rate::Hz8000.hz(), Rate::Hz16000.hz()));
                resampler.process(&narrow[..len], &mut sound)
            }
            Codec::Opus => {
                if self.opus.is_none() {
                    self.opus = OpusDecoder::new().ok(); // fails for want of memory only
                }
                self.opus.as_mut().map_or(0, |opus| opus.decode(packet.payload(), &mut sound))
            }
        };
        sound[..len].iter().map(|&sample| sample_from_f32(sample)).collect()
    }
}

/// Deletes recordings that are older than this; the count of those deleted.
pub fn expire(folder: &Path, age: Duration, now: SystemTime) -> usize {
    let Ok(files) = std::fs::read_dir(folder) else { return 0 };
    let old = files.flatten().filter(|file| {
        let modified = file.metadata().and_then(|meta| meta.modified());
        let wav = file.path().extension().is_some_and(|extension| extension == "wav");
        wav && modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|since| since > age))
    });
    old.filter(|file| std::fs::remove_file(file.path()).is_ok()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use voiced_core::codec::mulaw_from_sample;

    fn tone(sequence: u32) -> Packet {
        let bytes: Vec<u8> = (0..160).map(|index| mulaw_from_sample(if index % 8 < 4 { 8_000 } else { -8_000 })).collect();
        Packet::new(Codec::Mulaw, sequence, sequence * 20, &bytes).unwrap()
    }

    #[test]
    fn each_side_is_on_its_channel_at_its_moment_without_a_gap_from_jitter() {
        let began = Instant::now();
        let mut tape = Tape::new(began);
        for (index, late_ms) in [0, 15, 40, 5, 0].into_iter().enumerate() {
            let at = began + Duration::from_millis(20 * (index as u64 + 1) + late_ms);
            tape.lay(Side::Caller, at, &tone(index as u32));
        }
        tape.lay(Side::Agent, began + Duration::from_millis(1_020), &tone(0));
        let [caller, agent] = &tape.tracks;
        assert_eq!((caller.sound.len(), agent.sound.len()), (1_600, 16_320));
        let quiet = |sound: &[i16]| sound.iter().all(|&sample| sample == 0);
        let loud = |sound: &[i16]| sound.chunks(16).all(|millisecond| millisecond.iter().any(|sample| sample.unsigned_abs() > 4_000));
        assert!(loud(&caller.sound[32..]) && quiet(&agent.sound[..16_000]) && loud(&agent.sound[16_032..]));
    }
}
