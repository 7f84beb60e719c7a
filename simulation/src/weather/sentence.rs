//! A trouble as a sentence: `at 31.250s power-cut holder, torn, for 3s`. What is printed is what is read; commas may be
//! left out.

use std::fmt;
use std::str::FromStr;

use config::spot::{Wanted, nearest};
use config::units::{parse_size, show_size};

use super::{Kind, Mood, NAMES, Trouble, Unsynced, Whom};
use crate::moment;
use crate::scene::NODES_MAX;

const UNSYNCED: [(&str, Unsynced); 3] =
    [("lost", Unsynced::Lost), ("kept", Unsynced::Kept), ("torn", Unsynced::Torn)];

const MOODS: [(&str, Mood); 11] = [
    ("refuses", Mood::Refuses),
    ("resets", Mood::Resets),
    ("hangs", Mood::Hangs),
    ("trickles", Mood::Trickles),
    ("garbage", Mood::Garbage),
    ("fails", Mood::Fails),
    ("closes", Mood::Closes),
    ("truncates", Mood::Truncates),
    ("doubles", Mood::Doubles),
    ("interim", Mood::Interim),
    ("switches", Mood::Switches),
];

/// A clock that runs at half its speed, or as much too fast.
const PPM_MAX: i64 = 500_000;

/// What stands between a kind's name and its duration.
fn usage(name: &str) -> &'static str {
    match name {
        "power-cut" => "WHOM, lost|kept|torn,",
        "cut-commit" => "WHOM after COUNT operations, lost|kept|torn,",
        "all-power" => "lost|kept|torn",
        "part" | "black-hole" | "reset" => "NODE NODE",
        "slow" => "NODE NODE by TIME",
        "narrow" => "NODE NODE to SIZE/s",
        "disk-error" => "WHOM after COUNT operations",
        "slow-disk" => "WHOM by TIME",
        "clock-rate" | "clock-runaway" => "WHOM by +/-COUNTppm",
        "wall-jump" => "WHOM by +/-TIME",
        "upstream" => {
            "NAME refuses|resets|hangs|trickles|garbage|fails|closes|truncates|doubles|interim|switches"
        }
        "hot-key" | "key-flood" | "hang-ups" | "dawdlers" => "every TIME",
        "crash-loop" => "WHOM COUNT times within TIME, lost|kept|torn,",
        "rolling-restart" | "edition" | "join" => "",
        _ => "WHOM",
    }
}

/// A sentence of this kind, with words in capitals for what differs.
fn pattern(name: &str) -> String {
    let lasts = if MOMENTARY.contains(&name) { "" } else { "for TIME" };
    let parts = ["at TIME", name, usage(name), lasts].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(" ")
}

/// All sentences, a line each, and what their words in capitals mean.
pub fn manual() -> String {
    let lines: Vec<String> = NAMES.iter().map(|name| format!("  {}", pattern(name))).collect();
    format!("Weather, in a plan:\n{}\n{}", lines.join("\n"), meanings())
}

fn meanings() -> String {
    format!(
        "WHOM is leader, holder (who admitted last), follower or node-1 to node-{NODES_MAX}, as NODE is, and another in its place \
         once it has left; TIME is {}",
        moment::RULE
    )
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} {}", moment::show(self.at_ms), self.kind.name())?;
        match &self.kind {
            Kind::RollingRestart | Kind::Edition | Kind::Join => {}
            Kind::Kill { whom }
            | Kind::Stop { whom }
            | Kind::Pause { whom }
            | Kind::Isolate { whom }
            | Kind::Deaf { whom }
            | Kind::Mute { whom }
            | Kind::CallersCutOff { whom }
            | Kind::DiskFull { whom }
            | Kind::Leave { whom }
            | Kind::Replace { whom }
            | Kind::Wipe { whom } => write!(f, " {whom}")?,
            Kind::PowerCut { whom, unsynced } => write!(f, " {whom}, {},", word(&UNSYNCED, *unsynced))?,
            Kind::CutCommit { whom, after_ops, unsynced } => {
                write!(f, " {whom} after {after_ops} operations, {},", word(&UNSYNCED, *unsynced))?;
            }
            Kind::AllPower { unsynced } => write!(f, ", {},", word(&UNSYNCED, *unsynced))?,
            Kind::Part { one, other } | Kind::BlackHole { one, other } | Kind::Reset { one, other } => {
                write!(f, " node-{one} node-{other}")?;
            }
            Kind::Slow { one, other, by_ms } => {
                write!(f, " node-{one} node-{other} by {}", moment::show(*by_ms))?;
            }
            Kind::Narrow { one, other, bytes_per_s } => {
                write!(f, " node-{one} node-{other} to {}/s", show_size(*bytes_per_s))?;
            }
            Kind::DiskError { whom, after_ops } => write!(f, " {whom} after {after_ops} operations")?,
            Kind::SlowDisk { whom, by_ms } => write!(f, " {whom} by {}", moment::show(*by_ms))?,
            Kind::ClockRate { whom, ppm } | Kind::ClockRunaway { whom, ppm } => {
                write!(f, " {whom} by {ppm:+}ppm")?
            }
            Kind::WallJump { whom, by_ms } => {
                let sign = if *by_ms < 0 { '-' } else { '+' };
                write!(f, " {whom} by {sign}{}", moment::show(by_ms.unsigned_abs()))?;
            }
            Kind::Upstream { name, mood } => write!(f, " {name} {}", word(&MOODS, *mood))?,
            Kind::CrashLoop { whom, times, within_ms, unsynced } => {
                let (within, unsynced) = (moment::show(*within_ms), word(&UNSYNCED, *unsynced));
                write!(f, " {whom} {times} times within {within}, {unsynced},")?;
            }
            Kind::HotKey { every_ms }
            | Kind::KeyFlood { every_ms }
            | Kind::HangUps { every_ms }
            | Kind::Dawdlers { every_ms } => {
                write!(f, " every {}", moment::show(*every_ms))?;
            }
        }
        if self.kind.is_momentary() { Ok(()) } else { write!(f, " for {}", moment::show(self.for_ms)) }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(number) => write!(f, "node-{number}"),
            Self::Leader => f.write_str("leader"),
            Self::Holder => f.write_str("holder"),
            Self::Follower => f.write_str("follower"),
        }
    }
}

impl FromStr for Trouble {
    type Err = Wanted;

    fn from_str(text: &str) -> Result<Self, Wanted> {
        let mut words = Words(text.split([' ', '\t', '\n', ',']).filter(|word| !word.is_empty()).collect());
        words.0.reverse();
        let at_ms = words.after("at", Words::time).ok_or_else(|| Wanted {
            wanted: "`at TIME KIND …`, such as `at 10s isolate leader for 5s`".to_owned(),
            help: Some(format!("KIND is one of {}; TIME is {}", NAMES.join(", "), moment::RULE)),
        })?;
        let name = words.next().unwrap_or_default();
        if !NAMES.contains(&name) {
            return Err(Wanted {
                wanted: format!("after `at TIME` one of {}", NAMES.join(", ")),
                help: nearest(name, NAMES),
            });
        }
        let mut read = || {
            let kind = words.kind(name)?;
            let for_ms = if kind.is_momentary() { 0 } else { words.after("for", Words::time)? };
            words.0.is_empty().then_some(Self { at_ms, for_ms, kind })
        };
        read().ok_or_else(|| Wanted { wanted: format!("`{}`", pattern(name)), help: Some(meanings()) })
    }
}

/// Kinds that happen at once and do not last, by name.
const MOMENTARY: [&str; 8] =
    ["reset", "edition", "wall-jump", "clock-rate", "clock-runaway", "join", "leave", "replace"];

impl Kind {
    /// Whether it happens at once, and does not last.
    pub fn is_momentary(&self) -> bool {
        MOMENTARY.contains(&self.name())
    }
}

/// Words that are still to be read, the next one last.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.0.pop()
    }

    /// What `read` reads after the word `before`.
    fn after<T>(&mut self, before: &str, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.next()? == before { read(self) } else { None }
    }

    fn time(&mut self) -> Option<u64> {
        moment::parse(self.next()?).ok()
    }

    fn whom(&mut self) -> Option<Whom> {
        Some(match self.next()? {
            "leader" => Whom::Leader,
            "holder" => Whom::Holder,
            "follower" => Whom::Follower,
            other => Whom::Node(node(other)?),
        })
    }

    fn node(&mut self) -> Option<u8> {
        node(self.next()?)
    }

    fn operations(&mut self) -> Option<u64> {
        let count = self.after("after", |words| words.next()?.parse().ok())?;
        (self.next()? == "operations").then_some(count)
    }

    fn ppm(&mut self) -> Option<i64> {
        let ppm = self.after("by", Self::next)?.strip_suffix("ppm")?.parse().ok()?;
        (-PPM_MAX..=PPM_MAX).contains(&ppm).then_some(ppm)
    }

    fn one_of<T: Copy>(&mut self, all: &[(&str, T)]) -> Option<T> {
        let found = self.next()?;
        all.iter().find(|(word, _)| *word == found).map(|(_, value)| *value)
    }

    fn kind(&mut self, name: &str) -> Option<Kind> {
        Some(match name {
            "kill" => Kind::Kill { whom: self.whom()? },
            "power-cut" => Kind::PowerCut { whom: self.whom()?, unsynced: self.one_of(&UNSYNCED)? },
            "cut-commit" => Kind::CutCommit {
                whom: self.whom()?,
                after_ops: self.operations()?,
                unsynced: self.one_of(&UNSYNCED)?,
            },
            "all-power" => Kind::AllPower { unsynced: self.one_of(&UNSYNCED)? },
            "stop" => Kind::Stop { whom: self.whom()? },
            "pause" => Kind::Pause { whom: self.whom()? },
            "isolate" => Kind::Isolate { whom: self.whom()? },
            "deaf" => Kind::Deaf { whom: self.whom()? },
            "mute" => Kind::Mute { whom: self.whom()? },
            "part" => Kind::Part { one: self.node()?, other: self.node()? },
            "black-hole" => Kind::BlackHole { one: self.node()?, other: self.node()? },
            "slow" => {
                Kind::Slow { one: self.node()?, other: self.node()?, by_ms: self.after("by", Self::time)? }
            }
            "narrow" => {
                let (one, other) = (self.node()?, self.node()?);
                let per_s = self.after("to", Self::next)?.strip_suffix("/s")?;
                let bytes_per_s = parse_size(per_s).ok().filter(|bytes| *bytes > 0)?;
                Kind::Narrow { one, other, bytes_per_s }
            }
            "reset" => Kind::Reset { one: self.node()?, other: self.node()? },
            "callers-cut-off" => Kind::CallersCutOff { whom: self.whom()? },
            "disk-full" => Kind::DiskFull { whom: self.whom()? },
            "disk-error" => Kind::DiskError { whom: self.whom()?, after_ops: self.operations()? },
            "slow-disk" => Kind::SlowDisk { whom: self.whom()?, by_ms: self.after("by", Self::time)? },
            "clock-rate" => {
                let whom = self.whom()?;
                Kind::ClockRate { whom, ppm: self.ppm()? }
            }
            "clock-runaway" => {
                let whom = self.whom()?;
                Kind::ClockRunaway { whom, ppm: self.ppm()? }
            }
            "crash-loop" => {
                let (whom, times) = (self.whom()?, self.next()?.parse().ok()?);
                let within_ms = self.after("times", |words| words.after("within", Self::time))?;
                let unsynced = self.one_of(&UNSYNCED)?;
                Kind::CrashLoop { whom, times, within_ms: within_ms.max(1), unsynced }
            }
            "wall-jump" => {
                let (whom, by) = (self.whom()?, self.after("by", Self::next)?);
                let (sign, time) = by.strip_prefix('-').map_or((1, by), |time| (-1, time));
                let ms = moment::parse(time.strip_prefix('+').unwrap_or(time)).ok()?;
                Kind::WallJump { whom, by_ms: i64::try_from(ms).ok()? * sign }
            }
            "rolling-restart" => Kind::RollingRestart,
            "upstream" => Kind::Upstream { name: self.next()?.to_owned(), mood: self.one_of(&MOODS)? },
            "edition" => Kind::Edition,
            "join" => Kind::Join,
            "leave" => Kind::Leave { whom: self.whom()? },
            "replace" => Kind::Replace { whom: self.whom()? },
            "wipe" => Kind::Wipe { whom: self.whom()? },
            "hot-key" => Kind::HotKey { every_ms: self.after("every", Self::time)? },
            "key-flood" => Kind::KeyFlood { every_ms: self.after("every", Self::time)? },
            "hang-ups" => Kind::HangUps { every_ms: self.after("every", Self::time)? },
            "dawdlers" => Kind::Dawdlers { every_ms: self.after("every", Self::time)? },
            _ => return None,
        })
    }
}

/// `node-3` → 3.
pub fn node(text: &str) -> Option<u8> {
    let number = text.strip_prefix("node-")?.parse().ok()?;
    (1..=NODES_MAX).contains(&number).then_some(number)
}

fn word<'w, T: PartialEq>(words: &[(&'w str, T)], value: T) -> &'w str {
    words.iter().find(|(_, held)| *held == value).map(|(word, _)| *word).expect("every value has a word")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::draw;
    use super::*;

    fn error(text: &str) -> (String, String) {
        let Wanted { wanted, help } = text.parse::<Trouble>().expect_err(text);
        (wanted, help.unwrap_or_default())
    }

    #[test]
    fn what_is_printed_is_what_is_read() {
        let mut kinds = BTreeSet::new();
        for seed in 0..800 {
            let names = ["first".to_owned(), "second".to_owned()];
            for trouble in draw(seed, 7, 60_000, &NAMES, &names) {
                assert_eq!(trouble.to_string().parse(), Ok(trouble.clone()), "{trouble}");
                kinds.insert(trouble.kind.name());
            }
        }
        assert_eq!(kinds, BTreeSet::from(NAMES));
    }

    #[test]
    fn sentences_read_aloud() {
        for text in [
            "at 10s isolate leader for 5s",
            "at 20s pause node-2 for 8s",
            "at 31.250s power-cut holder, torn, for 3s",
            "at 40s slow node-1 node-3 by 500ms for 10s",
            "at 1s all-power, lost, for 72ms",
            "at 0s cut-commit follower after 12 operations, kept, for 2s",
            "at 5s narrow node-1 node-2 to 16KiB/s for 1s",
            "at 5s clock-rate node-1 by -300ppm",
            "at 5s wall-jump leader by -3600.001s",
            "at 5s upstream orders-db hangs for 4s",
            "at 5s rolling-restart for 9s",
            "at 5s edition",
            "at 5s clock-runaway follower by +50000ppm",
            "at 5s crash-loop node-2 3 times within 400ms, torn, for 6s",
        ] {
            assert_eq!(text.parse::<Trouble>().map(|trouble| trouble.to_string()), Ok(text.to_owned()));
        }
        let loose = "at 2m  power-cut leader kept for 1h".parse::<Trouble>().map(|it| it.to_string());
        assert_eq!(loose, Ok("at 120s power-cut leader, kept, for 3600s".to_owned()));
    }

    #[test]
    fn a_slip_is_told_what_was_wanted() {
        assert_eq!(error("at 1s isolat leader for 1s").1, "did you mean `isolate`?");
        assert!(error("isolate leader").0.starts_with("`at TIME KIND …`"));
        assert_eq!(error("at 1s isolate leader").0, "`at TIME isolate WHOM for TIME`");
        assert_eq!(error("at 1s isolate node-9 for 1s").0, "`at TIME isolate WHOM for TIME`");
        assert_eq!(error("at 1s edition for 1s").0, "`at TIME edition`");
        assert_eq!(
            error("at 1s slow node-1 node-2 by 5 for 1s").0,
            "`at TIME slow NODE NODE by TIME for TIME`"
        );
        assert!(error("at 1s kill leader for 1s for 2s").1.contains("node-1 to node-7"));
    }
}
