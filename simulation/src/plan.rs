//! A plan: a whole run before it begins. Readable, printable, and enough to run it again.
//!
//! A plan file is YAML; what it leaves out is drawn from its seed, so that a file with three lines of weather is one, and
//! so is what [`Plan::text`] prints, which leaves out nothing. `simulation/schema/plan.schema.json` describes its shape.

mod read;
#[cfg(test)]
mod schema;

use std::fmt::Write as _;
use std::path::Path;

use crate::expectation::Expectation;
use crate::moment;
use crate::scene::{Caller, Scene};
use crate::weather::{self, Kind, Trouble};

pub use read::Flags;
use read::read;

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Chance on the way: delays, sector losses, schedulers, keys.
    pub seed: u64,
    /// How long callers call.
    pub for_ms: u64,
    /// Of which this much at the end is without trouble.
    pub calm_ms: u64,
    /// Nodes, limits, callers.
    pub scene: Scene,
    /// In the order of beginning.
    pub weather: Vec<Trouble>,
    /// Besides the promises.
    pub expect: Vec<Expectation>,
}

/// How long callers call, if nobody says otherwise.
pub const FOR_MS: u64 = 30_000;
/// The part of a run without trouble: this much, and a third of a short run.
const CALM_MS: u64 = 9_000;

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64, nodes: Option<u8>, for_ms: u64, kinds: &[&'static str]) -> Self {
        let kinds = kinds.to_vec();
        let flags = Flags { seed: Some(seed), nodes, for_ms: Some(for_ms), kinds, ..Flags::default() };
        Self::of(&flags).expect("whatever is drawn is a plan")
    }

    /// Reads a plan file.
    ///
    /// # Errors
    /// The disk's, or all mistakes in the file, as a text.
    pub fn read(file: &Path) -> Result<Self, String> {
        Self::read_with(file, &Flags::default())
    }

    /// The same, with what was said beside the file.
    ///
    /// # Errors
    /// As [`Plan::read`].
    pub fn read_with(file: &Path, flags: &Flags) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        read(&file.display().to_string(), &text, flags, &|name| std::fs::read_to_string(folder.join(name)))
    }

    /// The plan of nothing but what was said.
    ///
    /// # Errors
    /// All mistakes, as a text.
    pub fn of(flags: &Flags) -> Result<Self, String> {
        read("no file", "{}", flags, &|_| Err(std::io::Error::other("no plan, no files")))
    }

    /// Reads what [`Plan::text`] printed.
    ///
    /// # Errors
    /// All its mistakes, as a text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let none = |_: &str| Err(std::io::Error::other("a plan as it is printed names no files"));
        read("plan", text, &Flags::default(), &none)
    }

    /// Troubles of the kinds that may be drawn: without a second edition none is applied.
    fn weather(seed: u64, scene: &Scene, until_ms: u64, kinds: &[&'static str]) -> Vec<Trouble> {
        let edition = Kind::Edition.name();
        let possible = |kind: &&'static str| *kind != edition || scene.gateway.len() > 1;
        let kinds: Vec<&str> = kinds.iter().copied().filter(possible).collect();
        weather::draw(seed, scene.nodes, until_ms, &kinds, &scene.upstreams())
    }

    /// The plan as a file holds it.
    pub fn text(&self) -> String {
        let Self { seed, for_ms, calm_ms, scene, weather, expect } = self;
        let range = |(low, high): (u64, u64)| format!("{} to {}", moment::show(low), moment::show(high));
        let mut text = format!(
            "seed: {seed}\nfor: {}\ncalm: {}\nnodes: {}\nnetwork: {{delay: {}}}\ndisk: {{sync: {}}}\n\
             snapshot_after_entries: {}\n",
            moment::show(*for_ms),
            moment::show(*calm_ms),
            scene.nodes,
            range(scene.delay_ms),
            range(scene.sync_ms),
            scene.snapshot_after,
        );
        list(&mut text, "weather", weather.iter().map(ToString::to_string));
        list(&mut text, "traffic", scene.callers.iter().map(caller));
        list(&mut text, "expect", expect.iter().map(Expectation::yaml));
        list(&mut text, "gateway", scene.gateway.iter().map(|edition| block(&edition.text)));
        text
    }
}

fn list(text: &mut String, key: &str, items: impl ExactSizeIterator<Item = String>) {
    let empty = if items.len() == 0 { " []" } else { "" };
    writeln!(text, "{key}:{empty}").expect("into a String");
    items.for_each(|item| writeln!(text, "  - {item}").expect("into a String"));
}

fn caller(caller: &Caller) -> String {
    let Caller { route, tenant, client, rate, at_once, spread, method, token, protocol } = caller;
    let client = client.as_ref().map(|client| format!(", client: {}", word(client))).unwrap_or_default();
    format!(
        "{{route: {}, tenant: {}{client}, rate: {rate}, at_once: {at_once}, spread: {spread}, method: {}, token: {}, \
         protocol: {}}}",
        word(route),
        word(tenant),
        word(method),
        token.word(),
        protocol.word()
    )
}

/// A text, in quotes where YAML might take it for something else.
pub fn word(text: &str) -> String {
    let begins = text.starts_with(|first: char| first.is_ascii_alphabetic());
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let meant = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let odd = meant.contains(&text.to_ascii_lowercase().as_str());
    if begins && plain && !odd { text.to_owned() } else { quoted(text) }
}

/// Every JSON text is one of YAML.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

/// Lines of a document as a block, as a reader likes them; in quotes where a block would change them.
fn block(text: &str) -> String {
    let fits = text.ends_with('\n')
        && !text.ends_with("\n\n")
        && !text.starts_with([' ', '\n'])
        && !text.contains(|odd: char| odd.is_control() && odd != '\n');
    if !fits {
        return quoted(text);
    }
    let line = |line: &str| if line.is_empty() { String::new() } else { format!("    {line}") };
    format!("|\n{}", text.lines().map(line).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edition::Edition;
    use crate::weather::NAMES;

    #[test]
    fn a_plan_that_was_written_is_read_as_it_was() {
        for seed in 0..300 {
            let plan = Plan::draw(seed, None, 30_000, &NAMES);
            let text = plan.text();
            let read = Plan::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(read, plan);
        }
    }

    #[test]
    fn odd_names_and_odd_documents_are_read_as_they_were() {
        let mut plan = Plan::draw(1, Some(3), 3_000, &[]);
        for (caller, tenant) in plan.scene.callers.iter_mut().zip(["7", "no", "a: b", "\"", "#", "{x}"]) {
            caller.tenant = tenant.replace(' ', "");
            caller.client = Some(format!("{tenant} & sons"));
        }
        let odd = ["# a remark\n\n\n", "  ", "\t", "\r\n"];
        for (edition, before) in plan.scene.gateway.iter_mut().zip(odd) {
            let text = edition.text.replacen("issuers:", &format!("{}issuers:", before.trim_matches(' ')), 1);
            *edition = Edition::parse("odd", &text).unwrap_or_else(|_| edition.clone());
        }
        assert_eq!(Plan::parse(&plan.text()), Ok(plan));
    }
}
