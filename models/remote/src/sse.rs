//! Server-sent events: bytes in, the `data` of each event out. Lines end in LF or CRLF; an empty line ends an event.

/// Longest event, in bytes: a chunk of a chat answer is below 1 KiB, so more is no event stream.
const EVENT_BYTES_MAX: usize = 256 * 1024;

/// Cuts a byte stream into events.
#[derive(Debug, Default)]
pub(crate) struct SseDecoder {
    line: Vec<u8>,
    data: Option<String>,
}

/// The stream has an event longer than [`EVENT_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EventTooLong;

impl SseDecoder {
    /// Takes bytes and appends the events that they complete to `events`.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<String>) -> Result<(), EventTooLong> {
        for &byte in bytes {
            if byte == b'\n' {
                events.extend(self.end_line());
            } else if self.line.len() + self.data.as_ref().map_or(0, String::len) < EVENT_BYTES_MAX {
                self.line.push(byte);
            } else {
                return Err(EventTooLong);
            }
        }
        Ok(())
    }

    /// The stream has ended: the event that lacked its empty line.
    pub fn finish(&mut self) -> Option<String> {
        self.end_line().or_else(|| self.data.take())
    }

    fn end_line(&mut self) -> Option<String> {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        let line = line.trim_end_matches('\r');
        if line.is_empty() {
            return self.data.take();
        }
        let value = line.strip_prefix("data:")?; // comments, names and ids of events say nothing to us
        let value = value.strip_prefix(' ').unwrap_or(value);
        match &mut self.data {
            Some(data) => {
                data.push('\n');
                data.push_str(value);
            }
            None => self.data = Some(value.to_owned()),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": ping\n\nevent: x\r\ndata: {\"a\":\"é\"}\r\n\r\ndata:one\ndata: two\n\ndata: [DONE]";

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        for size in 1..=STREAM.len() {
            let (mut decoder, mut events) = (SseDecoder::default(), Vec::new());
            for bytes in STREAM.as_bytes().chunks(size) {
                decoder.push(bytes, &mut events).unwrap();
            }
            events.extend(decoder.finish());
            assert_eq!(events, ["{\"a\":\"é\"}", "one\ntwo", "[DONE]"], "cut every {size} bytes");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let (mut decoder, mut events) = (SseDecoder::default(), Vec::new());
        let refused = (0..=EVENT_BYTES_MAX / 1024).any(|_| decoder.push(&[b'x'; 1024], &mut events).is_err());
        assert!(refused && events.is_empty());
    }
}
