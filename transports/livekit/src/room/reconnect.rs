//! Coming back after a loss.
//!
//! First by a resume: the server keeps a participant for some seconds, so the signalling socket is opened again, the server
//! told where we stand, and both connections look for a new way while sound goes on over the old. Where the server does
//! not know us any more, or resumes are of no use, by joining anew with fresh connections: with the token that the server
//! has refreshed, and with the first one where that is refused. All of it together may take [`GIVE_UP_AFTER`]; the pauses
//! between tries grow, and a connection that is lost again soon does not begin with short ones.

use super::event::{DisconnectReason, RoomEvent};
use super::membership::Turn;
use super::session::{BackBy, MEDIA_UP_MAX, Outage, Session, offer_relays};
use crate::livekit::{MEDIA_EVENTS_MAX, route_to};
use crate::media::{Order, count};
use livekit_protocol as proto;
use livekit_signaling::{SignalClient, SignalError, SignalEvents, SignalOptions};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A caller who has heard nothing for this long has hung up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// Waits between tries: short at first, for a network that changed, then for a server that restarts.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Resumes tried before it is a rejoin that is tried, and how long after the loss.
const RESUMES_MAX: u32 = 5;
const RESUME_WITHIN: Duration = Duration::from_secs(4);
/// A connection lost again within this time counts its tries on.
const CALM_AFTER: Duration = Duration::from_secs(10);
/// A server that ends the stay closes the media as well, and its word may come after: how long it is waited for. Who comes
/// back to a room that was deleted makes it anew.
const LAST_WORD: Duration = Duration::from_millis(300);

/// Why a try to come back failed.
enum Failed {
    /// Nothing answers; again.
    NoAnswer,
    /// The server does not know this stay.
    Unknown,
    /// The server does not want us.
    Refused(DisconnectReason),
}

impl Session {
    /// Whether an outage is over; the reason to give up, if any.
    pub(super) async fn settle(&mut self) -> Option<DisconnectReason> {
        if !self.membership.is_up() {
            return None;
        }
        let Outage { back_by, tries, .. } = self.outage.take_if(|outage| outage.back_by.is_some())?;
        self.mended = Some((Instant::now(), tries));
        let by = back_by?;
        let counters = self.shared.counters.clone();
        match by {
            // said by the membership itself
            BackBy::Join => return None,
            BackBy::Resume => {
                count(&counters.all.resumes);
                self.signal.set_reconnected().await;
            }
            BackBy::Rejoin => count(&counters.all.rejoins),
        }
        counters.reconnects.fetch_add(1, Ordering::Relaxed);
        self.tell(RoomEvent::Reconnected { rejoined: by == BackBy::Rejoin }).await;
        None
    }

    /// The connection is lost: brings the signalling back, or says why it cannot.
    pub(super) async fn lost(&mut self, why: proto::ReconnectReason, anew: bool) -> Option<DisconnectReason> {
        let last = why != proto::ReconnectReason::RrSignalDisconnected && !anew;
        if last && let Some(over) = self.last_word().await {
            return Some(over);
        }
        let shared = self.shared.clone();
        tokio::select! {
            () = shared.leave.wished.notified() => Some(shared.wished()),
            failed = self.come_back(why, anew) => failed,
        }
    }

    /// What the server still has to say about a stay whose media is down, if that is its end.
    async fn last_word(&mut self) -> Option<DisconnectReason> {
        let deadline = tokio::time::Instant::now() + LAST_WORD;
        while let Ok(signal) = tokio::time::timeout_at(deadline, self.signals.recv()).await {
            match self.signalled(signal) {
                Turn::Stay => {}
                Turn::Over(reason) => return Some(reason),
                Turn::Lost { .. } => return None,
            }
        }
        None
    }

    async fn come_back(&mut self, why: proto::ReconnectReason, mut anew: bool) -> Option<DisconnectReason> {
        let (since, mut tries) = if let Some(outage) = &self.outage {
            let failed = outage.until <= Instant::now();
            // both connections may fall one after the other: one outage, already being mended
            if outage.back_by.is_some() && why != proto::ReconnectReason::RrSignalDisconnected && !anew && !failed {
                return None;
            }
            // a join or a resume that brought no media is not tried again
            anew |= failed;
            (outage.since, outage.tries)
        } else {
            self.tell(RoomEvent::Reconnecting).await;
            (Instant::now(), self.mended.filter(|(at, _)| at.elapsed() < CALM_AFTER).map_or(0, |(_, tries)| tries))
        };
        self.outage = Some(Outage { since, until: since + GIVE_UP_AFTER, back_by: None, tries });
        let mut wait = wait_before(tries);
        loop {
            let left = (since + GIVE_UP_AFTER).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(DisconnectReason::Lost);
            }
            tokio::time::sleep(wait.min(left)).await;
            anew |= tries >= RESUMES_MAX || since.elapsed() >= RESUME_WITHIN;
            tries += 1;
            wait = wait_before(tries);
            let tried = if anew { tokio::time::timeout(left, self.rejoin()).await } else { tokio::time::timeout(left, self.resume(why)).await };
            match tried {
                Ok(Ok(())) => {
                    let by = if anew { BackBy::Rejoin } else { BackBy::Resume };
                    self.outage = Some(Outage { since, until: Instant::now() + MEDIA_UP_MAX.min(left), back_by: Some(by), tries });
                    self.flush().await;
                    return None;
                }
                Ok(Err(Failed::Refused(reason))) => return Some(reason),
                Ok(Err(Failed::Unknown)) if !anew => (anew, wait) = (true, Duration::ZERO),
                Ok(Err(Failed::Unknown | Failed::NoAnswer)) => {}
                Err(_) => return Some(DisconnectReason::Lost),
            }
        }
    }

    async fn resume(&mut self, why: proto::ReconnectReason) -> Result<(), Failed> {
        // a stay without a name cannot be gone on with
        if self.signal.join_response().participant.is_none() {
            return Err(Failed::Unknown);
        }
        self.signal.close().await;
        // news of the closed socket are no news of the next
        while self.signals.try_recv().is_ok() {}
        let response = self.signal.restart(why).await.map_err(|error| failed(&error, false))?;
        self.membership.resumed(&response, Instant::now());
        // the credentials of before hold for some minutes only
        offer_relays(&self.shared, response.ice_servers);
        Ok(())
    }

    async fn rejoin(&mut self) -> Result<(), Failed> {
        self.signal.close().await;
        let refreshed = self.signal.token();
        let mut joined = join(&self.url, &refreshed, self.options.clone()).await;
        if matches!(joined, Err(Failed::Refused(_))) && refreshed != self.token {
            // what the server has refreshed may be out of its time, when the first one is not
            joined = join(&self.url, &self.token, self.options.clone()).await;
        }
        let (signal, join, signals) = joined?;
        (self.signal, self.signals) = (signal, signals);
        self.route = route_to(&self.url).await.unwrap_or(self.route);
        let (events, media) = tokio::sync::mpsc::channel(MEDIA_EVENTS_MAX);
        self.media = media;
        self.order(Order::Renew { route: self.route, events });
        self.membership.joined(&join, Instant::now());
        offer_relays(&self.shared, join.ice_servers);
        self.show();
        Ok(())
    }
}

async fn join(url: &str, token: &str, options: SignalOptions) -> Result<(SignalClient, proto::JoinResponse, SignalEvents), Failed> {
    SignalClient::connect(url, token, options, None).await.map_err(|error| failed(&error, true))
}

/// The pause before a try that comes after so many.
fn wait_before(tries: u32) -> Duration {
    match tries.checked_sub(1) {
        None => Duration::ZERO,
        // not all rooms of a host at once
        Some(doublings) => WAIT_MIN.saturating_mul(1 << doublings.min(16)).min(WAIT_MAX).mul_f64(rand::random_range(0.5..1.0)),
    }
}

/// What an error means: only "who are you" and "you may not" are a server's last word to somebody who was in.
fn failed(error: &SignalError, joining: bool) -> Failed {
    use proto::leave_request::Action;
    tracing::debug!(%error, joining, "could not come back");
    match error {
        SignalError::LeaveRequest { reason, action: Action::Disconnect } => match DisconnectReason::from(*reason) {
            reason @ (DisconnectReason::DuplicateIdentity | DisconnectReason::Removed | DisconnectReason::RoomDeleted) => Failed::Refused(reason),
            _ => Failed::Unknown,
        },
        SignalError::Client(status, _) if joining && matches!(status.as_u16(), 401 | 403) => Failed::Refused(DisconnectReason::Refused),
        SignalError::TokenFormat | SignalError::UrlParse(_) if joining => Failed::Refused(DisconnectReason::Refused),
        SignalError::Connection(_) | SignalError::Timeout(_) | SignalError::Closed | SignalError::Server(..) => Failed::NoAnswer,
        SignalError::Handshake { status } if status.is_server_error() || status.as_u16() == 429 => Failed::NoAnswer,
        _ => Failed::Unknown,
    }
}
