//! The stream's connection once it speaks WebSocket.
//!
//! A line brings a message of 350 bytes every 20 ms, so what a message costs is what a call costs. All that has come is
//! read at once into a buffer that belongs to the thread, and each message in it is handed on from there, before anything
//! else happens. A call itself holds bytes only while a part of a message waits for its rest.

use super::frame::{self, Broken, Frames, Received};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Read at once, in bytes: some forty messages. More than mostly waits, so that a read tells the runtime that there is
/// no more, and no second one has to find out.
const READ_BYTES: usize = 16 * 1_024;
/// Read at once where a part of a message waits for its rest, in bytes: mostly the rest and some messages more.
const READ_ON_BYTES: usize = 2 * 1_024;
/// Messages that a client may still send after our goodbye before it answers it: Twilio's of 4 s.
const PARTING_MESSAGES_MAX: usize = 200;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// A stream's connection.
pub(super) struct Socket<C = TokioIo<Upgraded>> {
    connection: C,
    frames: Frames,
    /// What has come and was not handed on: mostly nothing.
    held: Vec<u8>,
    /// What the newest ping wants back. Older ones need no answer, so one place is enough.
    pong: Option<Vec<u8>>,
    /// What to say at the end, where the client has given cause.
    parting: Option<Parting>,
}

/// Why there is nothing more to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Broken(Broken),
    Lost,
}

/// The client's part in the end.
#[derive(Clone, Copy, Debug)]
struct Parting {
    code: Option<u16>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Socket<C> {
    /// Takes over; messages are of `bytes_max` at most.
    pub(super) fn new(connection: C, bytes_max: usize) -> Self {
        Self { connection, frames: Frames::new(bytes_max), held: Vec::new(), pong: None, parting: None }
    }

    /// Waits for messages and hands on all that have come, or as many as are wanted: those after a `Break` wait for the
    /// next time. Nothing is lost when it is dropped while it waits.
    pub(super) async fn receive<T>(&mut self, mut hear: impl FnMut(Received<'_>) -> ControlFlow<T>) -> Result<ControlFlow<T>, Ended> {
        poll_fn(|cx| self.poll_receive(cx, &mut hear)).await
    }

    /// The answer that a ping waits for.
    pub(super) fn owed(&mut self) -> Option<Vec<u8>> {
        let payload = self.pong.take()?;
        let mut frames = Vec::new();
        frame::pong(&payload, &mut frames);
        Some(frames)
    }

    /// Sends whole frames. Not to be gone on with after it was dropped while it waited.
    pub(super) async fn send(&mut self, frames: &[u8]) -> io::Result<()> {
        self.connection.write_all(frames).await?;
        self.connection.flush().await
    }

    /// Says goodbye, waits for the client's where `patient`, so that what was sent before is not lost by what comes in
    /// unread, and closes.
    pub(super) async fn close(mut self, patient: bool) -> io::Result<()> {
        let mut goodbye = Vec::new();
        frame::goodbye(self.parting.and_then(|parting| parting.code), &mut goodbye);
        self.send(&goodbye).await?;
        let mut messages_left = PARTING_MESSAGES_MAX;
        while patient && self.parting.is_none() && messages_left > 0 {
            let heard = self.receive(|_| {
                messages_left = messages_left.saturating_sub(1);
                ControlFlow::<()>::Continue(())
            });
            if heard.await == Err(Ended::Lost) {
                break;
            }
        }
        self.connection.shutdown().await
    }

    fn poll_receive<T>(&mut self, cx: &mut Context<'_>, hear: &mut impl FnMut(Received<'_>) -> ControlFlow<T>) -> Poll<Result<ControlFlow<T>, Ended>> {
        let mut held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return READ.with_borrow_mut(|buffer| {
                let len = ready!(self.poll_read(cx, buffer))?;
                let (used, flow) = self.hand_on(&mut buffer[..len], hear)?;
                self.held.extend_from_slice(&buffer[used..len]);
                Poll::Ready(Ok(flow))
            });
        }
        let (mut used, mut flow) = self.hand_on(&mut held, hear)?;
        if used == 0 {
            let len = held.len();
            held.resize(len + READ_ON_BYTES, 0);
            let read = self.poll_read(cx, &mut held[len..]);
            held.truncate(len + if let Poll::Ready(Ok(more)) = read { more } else { 0 });
            if read.is_pending() {
                self.held = held;
                return Poll::Pending;
            }
            ready!(read)?;
            (used, flow) = self.hand_on(&mut held, hear)?;
        }
        if used < held.len() {
            held.drain(..used);
            self.held = held;
        }
        Poll::Ready(Ok(flow))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, Ended>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = ready!(Pin::new(&mut self.connection).poll_read(cx, &mut buffer));
        Poll::Ready(match (read, buffer.filled().len()) {
            (Ok(()), 1..) => Ok(buffer.filled().len()),
            (Ok(()), 0) | (Err(_), _) => Err(Ended::Lost),
        })
    }

    /// Hands on the messages of `bytes`; tells how many bytes they were.
    fn hand_on<T>(&mut self, bytes: &mut [u8], hear: &mut impl FnMut(Received<'_>) -> ControlFlow<T>) -> Result<(usize, ControlFlow<T>), Ended> {
        let mut used = 0;
        // each round takes a frame, of 6 bytes at least
        loop {
            let (len, received) = match self.frames.take(&mut bytes[used..]) {
                Ok(Some(taken)) => taken,
                Ok(None) => return Ok((used, ControlFlow::Continue(()))),
                Err(broken) => {
                    self.parting = Some(Parting { code: Some(broken.code()) });
                    return Err(Ended::Broken(broken));
                }
            };
            used += len;
            match received {
                Received::Ping(payload) => self.pong = Some(payload.to_vec()),
                Received::Close(code) => self.parting = Some(Parting { code }),
                Received::Text(_) | Received::Binary | Received::Pong | Received::Piece => {}
            }
            if let ControlFlow::Break(value) = hear(received) {
                return Ok((used, ControlFlow::Break(value)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::frame::tests::masked;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::task::Waker;

    /// Gives what has come piece by piece, and nothing between two pieces.
    struct Pieces(VecDeque<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let Some(mut piece) = self.0.pop_front() else { return Poll::Ready(Ok(())) };
            if piece.is_empty() {
                return Poll::Pending;
            }
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Pieces {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// All that a socket hands on of these pieces, `some` messages at a time, and how it ends.
    fn received(pieces: VecDeque<Vec<u8>>, some: usize) -> (Vec<String>, Ended) {
        let mut socket = Socket::new(Pieces(pieces), 70_000);
        let (mut all, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
        loop {
            let mut left = some;
            let polled = socket.poll_receive(&mut cx, &mut |received| {
                all.push(format!("{received:?}"));
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if let Poll::Ready(Err(ended)) = polled {
                return (all, ended);
            }
        }
    }

    /// Frames of a client, some of them broken, of all lengths that are written differently.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let lengths = prop_oneof![0..200_usize, 60_000..70_100_usize];
        let opcode = prop_oneof![8 => Just(0x81_u8), 2 => Just(0x82), 1 => Just(0x01), 1 => Just(0x80), 1 => Just(0x00), 1 => Just(0x89), 1 => Just(0x8A), 1 => Just(0x88), 1 => any::<u8>()];
        let frame = (opcode, lengths, any::<[u8; 4]>(), 0..=0xC3_u8);
        proptest::collection::vec(frame, 0..12).prop_map(|frames| {
            frames.into_iter().flat_map(|(first, len, key, byte)| masked(first, &vec![byte; if first & 0x08 == 0 { len } else { len % 130 }], key)).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn however_bytes_arrive_they_are_the_same_messages(
            bytes in frames(),
            lengths in proptest::collection::vec(prop_oneof![4 => 1..20_usize, 2 => 1..2_000_usize, 1 => 10_000..40_000_usize], 1..40),
            some in 1..5_usize,
        ) {
            let at_once = received(VecDeque::from([bytes.clone()]), usize::MAX);
            let (mut pieces, mut rest) = (VecDeque::new(), bytes.as_slice());
            for len in lengths.iter().cycle() {
                let (piece, more) = rest.split_at((*len).min(rest.len()));
                if piece.is_empty() {
                    break;
                }
                pieces.extend([piece.to_vec(), Vec::new()]);
                rest = more;
            }
            prop_assert_eq!(received(pieces, some), at_once);
        }
    }
}
