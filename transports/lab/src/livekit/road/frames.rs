//! What a WebSocket's client sends, so far as a relay must know it to change a message without changing its length: an
//! HTTP request, then frames whose payload is masked (RFC 6455, 5.2).

/// Longest frame taken, in bytes: a description of a connection is some KB.
const FRAME_BYTES_MAX: usize = 1_048_576;
const END_OF_REQUEST: &[u8] = b"\r\n\r\n";

/// A client's stream, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Frames {
    held: Vec<u8>,
    /// The request is over.
    open: bool,
}

impl Frames {
    /// Takes the next bytes and returns those that can go on, with `change` made to each whole frame's payload. `None` when
    /// a frame is too long: the connection is not worth keeping.
    pub(super) fn pass(&mut self, bytes: &[u8], change: impl Fn(&mut [u8])) -> Option<Vec<u8>> {
        self.held.extend_from_slice(bytes);
        let mut done = 0;
        if !self.open {
            let end = self.held.windows(END_OF_REQUEST.len()).position(|window| window == END_OF_REQUEST);
            let Some(end) = end else { return (self.held.len() <= FRAME_BYTES_MAX).then(Vec::new) };
            done = end + END_OF_REQUEST.len();
            self.open = true;
        }
        while let Some((payload_at, len)) = header(&self.held[done..]) {
            if len > FRAME_BYTES_MAX {
                return None;
            }
            let Some(frame) = self.held.get_mut(done..done + payload_at + len) else { break };
            let (head, payload) = frame.split_at_mut(payload_at);
            if let Some(mask) = mask(head) {
                unmask(payload, mask);
                change(payload);
                unmask(payload, mask);
            }
            done += payload_at + len;
        }
        Some(self.held.drain(..done).collect())
    }
}

/// Where the payload begins and its length; `None` while the header is not all there.
fn header(frame: &[u8]) -> Option<(usize, usize)> {
    let (masked, short) = (frame.get(1)? >> 7 == 1, frame.get(1)? & 0x7F);
    let (len, at) = match short {
        126 => (u64::from(u16::from_be_bytes(frame.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(frame.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let at = if masked { at + 4 } else { at };
    (frame.len() >= at).then(|| (at, usize::try_from(len).unwrap_or(usize::MAX)))
}

fn mask(head: &[u8]) -> Option<[u8; 4]> {
    if head.get(1)? >> 7 == 0 {
        return None;
    }
    head.last_chunk().copied()
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_message_is_changed_under_its_mask_however_it_is_cut() {
        let mask = [1, 2, 3, 4];
        let frame = |payload: &[u8]| {
            let mut masked = payload.to_vec();
            unmask(&mut masked, mask);
            let len = payload.len() as u16;
            [&[0x82, 0x80 | 0x7e][..], &len.to_be_bytes(), &mask, &masked].concat()
        };
        let stream = [&b"GET / HTTP/1.1\r\n\r\n"[..], &frame(&[b'a'; 200]), &frame(b"bad")].concat();
        let expected = [&b"GET / HTTP/1.1\r\n\r\n"[..], &frame(&[b'A'; 200]), &frame(b"BAD")].concat();
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        for piece in stream.chunks(7) {
            out.extend(frames.pass(piece, <[u8]>::make_ascii_uppercase).unwrap());
        }
        assert_eq!(out, expected);
        assert_eq!(Frames { held: Vec::new(), open: true }.pass(&[0x82, 0xFF, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], |_| {}), None);
    }
}
