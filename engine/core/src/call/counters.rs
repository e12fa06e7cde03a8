//! What is counted in a call, from both of its directions.

/// What a leg has counted since its call was admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegCounters {
    /// Packets that came.
    pub received: u32,
    /// Packets whose moment had passed.
    pub late: u32,
    /// Packets that had come before.
    pub duplicate: u32,
    /// Packets that never came.
    pub lost: u32,
    /// Lost packets that were rebuilt from their successor.
    pub recovered: u32,
    /// Packets of another codec or rate than the call's, and damaged ones.
    pub foreign: u32,
    /// Ticks in which some sound had to be made up.
    pub concealed: u32,
    /// Caller's sound thrown away because too much was waiting, in ms.
    pub dropped_ms: u32,
    /// Caller's quiet skipped to win back delay, in ms.
    pub skipped_ms: u32,
    /// Caller's sound repeated to gain delay, in ms.
    pub stretched_ms: u32,
    /// The delay that hearing a lossy network aims at, in ms.
    pub target_ms: u32,
    /// Times the far end ran dry within a reply.
    pub underruns: u32,
    /// Speech chunks of void turns, dropped unheard.
    pub dropped_old_turn: u32,
    /// Speech chunks dropped for want of room.
    pub dropped_no_room: u32,
    /// Commands dropped because too many came at once.
    pub dropped_commands: u32,
    /// Answers of the end-of-turn model that nobody waited for any more.
    pub stale_verdicts: u32,
    /// Moves that the turn machine refused.
    pub refused_moves: u32,
}
