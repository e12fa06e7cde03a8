//! Several providers of one role, best first: the next one takes over within the call when one fails or is slow.
//!
//! Language models are raced ([`llm`]): the next is asked when the first has no word in time, and whoever speaks first
//! answers. Voices take over in the middle of a phrase ([`tts`]). Speech to text needs the sound of the call, so its
//! chain is with the call; what it shares with the others is the [`Link`].

pub mod llm;
pub mod tts;

use std::sync::Arc;

use crate::breaker::{Breaker, Permit};

/// One provider of a chain.
pub struct Link<P: ?Sized> {
    /// Its health, shared by all chains that name it.
    pub breaker: Arc<Breaker>,
    /// The provider.
    pub provider: Arc<P>,
}

impl<P: ?Sized> Clone for Link<P> {
    fn clone(&self) -> Self {
        Self { breaker: Arc::clone(&self.breaker), provider: Arc::clone(&self.provider) }
    }
}

/// Goes through a chain once, healthy providers first, and through those that are to be left alone only when there is
/// no other.
pub struct Order {
    /// Links not tried yet, in their order.
    left: Vec<usize>,
}

impl Order {
    /// Over a chain of so many links, beginning at this one.
    pub fn new(links: usize, first: usize) -> Self {
        Self { left: (0..links).map(|place| (first + place) % links).collect() }
    }

    /// The next link to try, and the leave to.
    pub fn next<P: ?Sized>(&mut self, links: &[Link<P>]) -> Option<(usize, Permit)> {
        let admitted = self.left.iter().enumerate().find_map(|(place, &link)| Some((place, links[link].breaker.admit()?)));
        let (place, permit) = match admitted {
            Some(admitted) => admitted,
            None => (0, links[*self.left.first()?].breaker.insist()),
        };
        Some((self.left.remove(place), permit))
    }

    /// The link may be tried once more, after the others.
    pub fn again(&mut self, link: usize) {
        self.left.push(link);
    }

    /// Another link is well and could take over.
    pub fn has_more<P: ?Sized>(&self, links: &[Link<P>]) -> bool {
        self.left.iter().any(|&link| links[link].breaker.would_admit())
    }
}
