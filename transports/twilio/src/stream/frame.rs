//! RFC 6455, the server's half, without a socket: bytes to messages and back.
//!
//! A message that came in one frame, as all of Twilio's do, is unmasked where it lies and borrowed from there; only the
//! frames of one that came in pieces are gathered. No extension is ever agreed upon, so reserved bits are refused, as is
//! everything else that a client may not send. A frame is refused for its length before its payload has come.

/// Longest payload of a control frame, in bytes; the RFC's.
const CONTROL_BYTES_MAX: usize = 125;

/// A message, or what else a frame brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    Text(&'a str),
    /// Nobody sends us bytes, so nobody looks at them.
    Binary,
    Ping(&'a [u8]),
    Pong,
    /// The client leaves; the code is what it is answered.
    Close(Option<u16>),
    /// A piece of a message whose rest follows.
    Piece,
}

/// What a client may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("a frame without a mask")]
    Unmasked,
    #[error("reserved bits are set")]
    Reserved,
    #[error("an opcode that is not defined")]
    Opcode,
    #[error("a control frame in pieces or too long")]
    Control,
    #[error("a piece without a beginning, or a beginning within a message")]
    Order,
    #[error("longer than a message may be")]
    TooLong,
    #[error("text that is not UTF-8")]
    Utf8,
}

impl Broken {
    /// The close code that says so.
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::TooLong => 1_009,
            Self::Utf8 => 1_007,
            Self::Unmasked | Self::Reserved | Self::Opcode | Self::Control | Self::Order => PROTOCOL_ERROR,
        }
    }
}

const PROTOCOL_ERROR: u16 = 1_002;

/// Takes messages off a client's bytes.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Longest frame and longest message, in bytes.
    bytes_max: usize,
    /// What the pieces gathered so far are of.
    open: Option<Kind>,
    gathered: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Binary,
}

impl Frames {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, open: None, gathered: Vec::new() }
    }

    /// The first frame of `bytes`, which is unmasked there, and its length; `None` until all of it has come.
    pub(crate) fn take<'a>(&'a mut self, bytes: &'a mut [u8]) -> Result<Option<(usize, Received<'a>)>, Broken> {
        let Some(header) = Header::read(bytes, self.bytes_max)? else { return Ok(None) };
        let end = header.start + header.len;
        let Some(payload) = bytes.get_mut(header.start..end) else { return Ok(None) };
        unmask(payload, header.key);
        let received = match header.opcode {
            Opcode::Data(kind) => self.data(kind, header.is_final, payload)?,
            Opcode::Ping => Received::Ping(payload),
            Opcode::Pong => Received::Pong,
            Opcode::Close => close(payload)?,
        };
        Ok(Some((end, received)))
    }

    /// `None` for a kind goes on with the message before.
    fn data<'a>(&'a mut self, kind: Option<Kind>, is_final: bool, payload: &'a [u8]) -> Result<Received<'a>, Broken> {
        let (Some(kind), goes_on) = (kind.or(self.open), kind.is_none()) else { return Err(Broken::Order) };
        if self.open.is_some() != goes_on {
            return Err(Broken::Order);
        }
        if is_final && !goes_on {
            return whole(kind, payload);
        }
        if !goes_on {
            self.gathered = Vec::new();
        }
        if self.gathered.len() + payload.len() > self.bytes_max {
            return Err(Broken::TooLong);
        }
        self.gathered.extend_from_slice(payload);
        self.open = (!is_final).then_some(kind);
        if is_final { whole(kind, &self.gathered) } else { Ok(Received::Piece) }
    }
}

fn whole(kind: Kind, payload: &[u8]) -> Result<Received<'_>, Broken> {
    match kind {
        Kind::Text => str::from_utf8(payload).map(Received::Text).map_err(|_| Broken::Utf8),
        Kind::Binary => Ok(Received::Binary),
    }
}

fn close(payload: &[u8]) -> Result<Received<'static>, Broken> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(Received::Close(None)) } else { Err(Broken::Control) };
    };
    str::from_utf8(reason).map_err(|_| Broken::Utf8)?;
    Ok(Received::Close(Some(match u16::from_be_bytes(*code) {
        code @ (1_000..=1_003 | 1_007..=1_014 | 3_000..=4_999) => code,
        _ => PROTOCOL_ERROR,
    })))
}

/// What stands before a payload.
struct Header {
    is_final: bool,
    opcode: Opcode,
    key: [u8; 4],
    /// Where the payload begins, and its length, in bytes.
    start: usize,
    len: usize,
}

enum Opcode {
    Data(Option<Kind>),
    Close,
    Ping,
    Pong,
}

impl Header {
    /// `None` until all of it has come; what is wrong with it is told as soon as it can be seen.
    fn read(bytes: &[u8], bytes_max: usize) -> Result<Option<Self>, Broken> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Broken::Reserved);
        }
        if second & 0x80 == 0 {
            return Err(Broken::Unmasked);
        }
        let is_final = first & 0x80 != 0;
        let (opcode, len_max) = match first & 0x0F {
            0x0 => (Opcode::Data(None), bytes_max),
            0x1 => (Opcode::Data(Some(Kind::Text)), bytes_max),
            0x2 => (Opcode::Data(Some(Kind::Binary)), bytes_max),
            0x8..=0xA if !is_final => return Err(Broken::Control),
            0x8 => (Opcode::Close, CONTROL_BYTES_MAX),
            0x9 => (Opcode::Ping, CONTROL_BYTES_MAX),
            0xA => (Opcode::Pong, CONTROL_BYTES_MAX),
            _ => return Err(Broken::Opcode),
        };
        let (len, key_at) = match second & 0x7F {
            126 => (rest.first_chunk().map(|len| u64::from(u16::from_be_bytes(*len))), 4),
            127 => (rest.first_chunk().map(|len| u64::from_be_bytes(*len)), 10),
            short => (Some(u64::from(short)), 2),
        };
        let Some(len) = len else { return Ok(None) };
        if len > len_max as u64 {
            return Err(if matches!(opcode, Opcode::Data(_)) { Broken::TooLong } else { Broken::Control });
        }
        let Some(&key) = bytes.get(key_at..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
        Ok(Some(Self { is_final, opcode, key, start: key_at + key.len(), len: len as usize }))
    }
}

/// By words of 8 bytes, of which the compiler takes several at once.
fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// Appends a message of ours.
pub(crate) fn text(text: &str, to: &mut Vec<u8>) {
    append(0x1, text.as_bytes(), to);
}

/// Appends the answer to a ping.
pub(crate) fn pong(payload: &[u8], to: &mut Vec<u8>) {
    append(0xA, payload, to);
}

/// Appends our goodbye.
pub(crate) fn goodbye(code: Option<u16>, to: &mut Vec<u8>) {
    append(0x8, code.map(u16::to_be_bytes).as_ref().map_or(&[], <[u8; 2]>::as_slice), to);
}

fn append(opcode: u8, payload: &[u8], to: &mut Vec<u8>) {
    to.push(0x80 | opcode);
    match payload.len() {
        len @ 0..126 => to.push(len as u8),
        len @ 126..0x1_0000 => {
            to.push(126);
            to.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            to.push(127);
            to.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    to.extend_from_slice(payload);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A client's frame, of this first byte.
    pub(crate) fn masked(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
        let mut frame = Vec::new();
        append(0, payload, &mut frame);
        frame[0] = first;
        frame[1] |= 0x80;
        let start = frame.len() - payload.len();
        frame.splice(start..start, key);
        for (byte, key) in frame[start + 4..].iter_mut().zip(key.iter().cycle()) {
            *byte ^= key;
        }
        frame
    }

    /// What a client's bytes are, one frame after another.
    fn taken(mut bytes: Vec<u8>) -> Result<Vec<String>, Broken> {
        let (mut frames, mut all, mut at) = (Frames::new(1_000), Vec::new(), 0);
        while let Some((len, received)) = frames.take(&mut bytes[at..])? {
            all.push(format!("{received:?}"));
            at += len;
        }
        Ok(all)
    }

    #[test]
    fn the_examples_of_the_rfc_are_understood() {
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(taken(hello.to_vec()), Ok(vec![r#"Text("Hello")"#.to_owned()]));
        let ping = [0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(taken(ping.to_vec()), Ok(vec![format!("{:?}", Received::Ping(b"Hello"))]));
        let mut ours = Vec::new();
        text("Hello", &mut ours);
        pong(b"Hello", &mut ours);
        assert_eq!(ours, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x8a, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        for (len, head) in [(125, &[0x81, 0x7D][..]), (256, &[0x81, 0x7E, 0x01, 0x00]), (65_536, &[0x81, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0])] {
            let mut ours = Vec::new();
            text(&"x".repeat(len), &mut ours);
            assert_eq!((&ours[..head.len()], ours.len()), (head, head.len() + len));
        }
        let mut goodbyes = Vec::new();
        goodbye(None, &mut goodbyes);
        goodbye(Some(1_009), &mut goodbyes);
        assert_eq!(goodbyes, [0x88, 0x00, 0x88, 0x02, 0x03, 0xF1]);
    }

    #[test]
    fn a_message_in_pieces_is_whole_again_and_may_be_interrupted() {
        let key = [1, 2, 3, 4];
        // a character is cut through
        let frames = [(0x01, "Ol".as_bytes()), (0x89, b"?"), (0x00, &[0xC3]), (0x8A, b""), (0x80, &[0xA1]), (0x82, b"12"), (0x81, b"!"), (0x88, &[3, 232])];
        let bytes = frames.iter().flat_map(|(first, payload)| masked(*first, payload, key)).collect();
        let expected = [
            Received::Piece,
            Received::Ping(b"?"),
            Received::Piece,
            Received::Pong,
            Received::Text("Ol\u{e1}"),
            Received::Binary,
            Received::Text("!"),
            Received::Close(Some(1_000)),
        ];
        assert_eq!(taken(bytes), Ok(expected.iter().map(|received| format!("{received:?}")).collect()));
    }

    #[test]
    fn what_a_client_may_not_send_is_refused() {
        let key = [0; 4];
        let frame = |first, payload: &[u8]| masked(first, payload, key);
        let two = |first: (u8, &[u8]), second: (u8, &[u8])| [masked(first.0, first.1, key), masked(second.0, second.1, key)].concat();
        let wire = [
            (vec![0x81, 0x05], Broken::Unmasked),
            (frame(0xC1, b"deflated"), Broken::Reserved),
            (frame(0x83, b""), Broken::Opcode),
            (frame(0x8B, b""), Broken::Opcode),
            (frame(0x09, b""), Broken::Control),
            (frame(0x89, &[0; 126]), Broken::Control),
            (frame(0x88, &[3]), Broken::Control),
            (frame(0x88, &[3, 232, 0xFF]), Broken::Utf8),
            (frame(0x80, b""), Broken::Order),
            (two((0x01, b""), (0x81, b"")), Broken::Order),
            (frame(0x81, &[0xC3]), Broken::Utf8),
            (two((0x01, &[0xC3]), (0x80, b"")), Broken::Utf8),
            // refused before the payload has come, whatever is said of its length
            (frame(0x81, &[b'x'; 1_001])[..4].to_vec(), Broken::TooLong),
            (vec![0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], Broken::TooLong),
            (two((0x01, &[b'x'; 600]), (0x80, &[b'x'; 600])), Broken::TooLong),
        ];
        for (bytes, broken) in wire {
            assert_eq!(taken(bytes.clone()), Err(broken), "{bytes:x?}");
        }
        assert_eq!(taken(frame(0x88, &[0, 5])), Ok(vec!["Close(Some(1002))".to_owned()]), "a code that nobody may send");
    }
}
