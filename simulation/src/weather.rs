//! The weather: troubles, when each begins and how long it lasts. Drawn from a seed before the run, or read from a plan.

mod draw;
mod sentence;

pub use draw::{NAMES, draw};
pub use sentence::{manual, node};

/// Whom a trouble befalls, decided when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The node of this number; another, once that has left.
    Node(u8),
    /// Whoever led last.
    Leader,
    /// Whoever admitted last: tokens are likely there.
    Holder,
    /// The next node after that.
    Follower,
}

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// Nothing.
    Lost,
    /// All of it.
    Kept,
    /// Each sector by chance.
    Torn,
}

/// How an upstream behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Nobody listens.
    Refuses,
    /// Resets the connection instead of answering.
    Resets,
    /// Never answers.
    Hangs,
    /// Answers byte by byte, with pauses.
    Trickles,
    /// Answers what is no HTTP.
    Garbage,
    /// Answers 503.
    Fails,
    /// Closes the connection after each answer, unannounced.
    Closes,
    /// Closes the connection in the middle of each answer's body.
    Truncates,
    /// Sends another answer after each, which nobody asked for.
    Doubles,
    /// Sends interim answers before each.
    Interim,
    /// Says that it switches to another protocol, which nobody asked for.
    Switches,
}

/// A kind of trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The process is killed; it is started again at the end.
    Kill { whom: Whom },
    /// The machine loses its power.
    PowerCut { whom: Whom, unsynced: Unsynced },
    /// It loses its power after so many more operations of its disk, in the middle of a commit; back after the duration.
    CutCommit { whom: Whom, after_ops: u64, unsynced: Unsynced },
    /// All nodes lose their power at once.
    AllPower { unsynced: Unsynced },
    /// The process is told to stop in order, and is started again at the end.
    Stop { whom: Whom },
    /// The process stands still.
    Pause { whom: Whom },
    /// A node hears nobody and nobody hears it.
    Isolate { whom: Whom },
    /// A node does not hear the other nodes, but they hear it.
    Deaf { whom: Whom },
    /// The other nodes do not hear a node, but it hears them.
    Mute { whom: Whom },
    /// Two nodes do not hear each other.
    Part { one: u8, other: u8 },
    /// Connections between two nodes go silent for good.
    BlackHole { one: u8, other: u8 },
    /// Everything between two nodes is late.
    Slow { one: u8, other: u8, by_ms: u64 },
    /// Little passes between two nodes.
    Narrow { one: u8, other: u8, bytes_per_s: u64 },
    /// Connections between two nodes are reset, once.
    Reset { one: u8, other: u8 },
    /// Callers do not reach a node.
    CallersCutOff { whom: Whom },
    /// No room on a disk.
    DiskFull { whom: Whom },
    /// An operation of a disk fails, after so many more.
    DiskError { whom: Whom, after_ops: u64 },
    /// Syncs take longer.
    SlowDisk { whom: Whom, by_ms: u64 },
    /// A node's clocks gain or lose, from now on.
    ClockRate { whom: Whom, ppm: i64 },
    /// A node's wall clock jumps, for good.
    WallJump { whom: Whom, by_ms: i64 },
    /// Every node in turn is stopped in order and started again.
    RollingRestart,
    /// An upstream misbehaves.
    Upstream { name: String, mood: Mood },
    /// The operator applies the document's next edition.
    Edition,
    /// A new node, one that nobody knows yet, joins.
    Join,
    /// The operator lets a member leave.
    Leave { whom: Whom },
    /// The operator lets a new node take a member's place.
    Replace { whom: Whom },
    /// A node loses its disk, and starts with an empty one. Once in a run: with two, a majority could be lost.
    Wipe { whom: Whom },
    /// One tenant asks as often as it can.
    HotKey { every_ms: u64 },
    /// Callers that nobody has seen before.
    KeyFlood { every_ms: u64 },
    /// Callers that go away in the middle of a body.
    HangUps { every_ms: u64 },
    /// Callers that never come to the end of a head.
    Dawdlers { every_ms: u64 },
    /// A node's clocks gain or lose more than the bound that quotas count on, from now on.
    ClockRunaway { whom: Whom, ppm: i64 },
    /// The machine loses its power, and so many times more as it starts again: a while after, or in the middle of a commit.
    CrashLoop { whom: Whom, times: u64, within_ms: u64, unsynced: Unsynced },
}

/// One trouble. It reads and is written as a sentence, see [`sentence`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When it begins, after callers begin.
    pub at_ms: u64,
    /// How long it lasts.
    pub for_ms: u64,
    /// What it is.
    pub kind: Kind,
}

impl Kind {
    /// The nodes that it names by number.
    pub fn nodes(&self) -> Vec<u8> {
        match self {
            Self::Part { one, other }
            | Self::BlackHole { one, other }
            | Self::Slow { one, other, .. }
            | Self::Narrow { one, other, .. }
            | Self::Reset { one, other } => vec![*one, *other],
            Self::Kill { whom }
            | Self::PowerCut { whom, .. }
            | Self::CutCommit { whom, .. }
            | Self::Stop { whom }
            | Self::Pause { whom }
            | Self::Isolate { whom }
            | Self::Deaf { whom }
            | Self::Mute { whom }
            | Self::CallersCutOff { whom }
            | Self::DiskFull { whom }
            | Self::DiskError { whom, .. }
            | Self::SlowDisk { whom, .. }
            | Self::ClockRate { whom, .. }
            | Self::ClockRunaway { whom, .. }
            | Self::CrashLoop { whom, .. }
            | Self::WallJump { whom, .. }
            | Self::Leave { whom }
            | Self::Replace { whom }
            | Self::Wipe { whom } => match whom {
                Whom::Node(number) => vec![*number],
                Whom::Leader | Whom::Holder | Whom::Follower => Vec::new(),
            },
            Self::AllPower { .. }
            | Self::RollingRestart
            | Self::Upstream { .. }
            | Self::Edition
            | Self::Join
            | Self::HotKey { .. }
            | Self::KeyFlood { .. }
            | Self::HangUps { .. }
            | Self::Dawdlers { .. } => Vec::new(),
        }
    }

    /// Its name, as the switches and the coverage have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::PowerCut { .. } => "power-cut",
            Self::CutCommit { .. } => "cut-commit",
            Self::AllPower { .. } => "all-power",
            Self::Stop { .. } => "stop",
            Self::Pause { .. } => "pause",
            Self::Isolate { .. } => "isolate",
            Self::Deaf { .. } => "deaf",
            Self::Mute { .. } => "mute",
            Self::Part { .. } => "part",
            Self::BlackHole { .. } => "black-hole",
            Self::Slow { .. } => "slow",
            Self::Narrow { .. } => "narrow",
            Self::Reset { .. } => "reset",
            Self::CallersCutOff { .. } => "callers-cut-off",
            Self::DiskFull { .. } => "disk-full",
            Self::DiskError { .. } => "disk-error",
            Self::SlowDisk { .. } => "slow-disk",
            Self::ClockRate { .. } => "clock-rate",
            Self::WallJump { .. } => "wall-jump",
            Self::RollingRestart => "rolling-restart",
            Self::Upstream { .. } => "upstream",
            Self::Edition => "edition",
            Self::Join => "join",
            Self::Leave { .. } => "leave",
            Self::Replace { .. } => "replace",
            Self::Wipe { .. } => "wipe",
            Self::HotKey { .. } => "hot-key",
            Self::KeyFlood { .. } => "key-flood",
            Self::HangUps { .. } => "hang-ups",
            Self::Dawdlers { .. } => "dawdlers",
            Self::ClockRunaway { .. } => "clock-runaway",
            Self::CrashLoop { .. } => "crash-loop",
        }
    }
}
