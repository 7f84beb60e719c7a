//! A plan: a whole run before it begins. Readable, printable, and enough to run it again.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::scene::Scene;
use crate::weather::{self, Trouble};

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
}

/// The part of a run without trouble: at least this much, and a third of a short run.
const CALM_MS: u64 = 9_000;

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64, nodes: Option<u8>, for_ms: u64, kinds: &[&str]) -> Self {
        let scene = Scene::draw(seed, nodes);
        let calm_ms = CALM_MS.min(for_ms / 3);
        let weather = weather::draw(seed, scene.nodes, for_ms - calm_ms, kinds);
        Self { seed, for_ms, calm_ms, scene, weather }
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// The file's, or where it is no plan.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Self::parse(&text).map_err(|why| format!("{}: {why}", file.display()))
    }

    /// Reads a plan's text.
    ///
    /// # Errors
    /// Where it is no plan.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plan: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        plan.check()?;
        Ok(plan)
    }

    /// The plan as a file holds it.
    pub fn text(&self) -> String {
        serde_saphyr::to_string(self).expect("a plan is plain data")
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=crate::scene::NODES_MAX).contains(&self.scene.nodes) {
            return Err(format!("found {} nodes, wanted 1 to {}", self.scene.nodes, crate::scene::NODES_MAX));
        }
        if self.calm_ms > self.for_ms {
            return Err(format!("found calm_ms {} of for_ms {}", self.calm_ms, self.for_ms));
        }
        let late =
            self.weather.iter().find(|trouble| trouble.at_ms + trouble.for_ms > self.for_ms - self.calm_ms);
        if let Some(late) = late {
            return Err(format!("found a trouble that lasts into the calm: {late}"));
        }
        if let Some(caller) = self.scene.callers.iter().find(|caller| caller.limits.is_empty()) {
            return Err(format!("found a caller without a limit: {caller:?}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weather::NAMES;

    #[test]
    fn a_plan_that_was_written_is_read_as_it_was() {
        for seed in 0..50 {
            let plan = Plan::draw(seed, None, 30_000, &NAMES);
            let text = plan.text();
            let read = Plan::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(read, plan);
        }
    }
}
