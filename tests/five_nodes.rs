//! Five nodes: limits of fewer tokens than there are nodes, a tenant that swings to one node, a tenant at a thousand times
//! its limit. Real processes, driven and judged by `quorumgate demo`.
//!
//! `FIVE_NODES_SECONDS=60 cargo test --test five_nodes -- --nocapture` drives each for a minute and prints the tables; the
//! default is short. Exactness is asserted whatever the machine does. The floors here, in percent of what a perfect bucket
//! admits, are below those of a drive by hand (99, and 98 after a swing): in a test run the machine has much else to do, and
//! the programs are not optimised.

mod support;

use std::path::Path;
use std::sync::Mutex;

use support::quorumgate;

/// One cluster of five at a time.
static MACHINE: Mutex<()> = Mutex::new(());

/// Drives a scenario; what the verdict says against it.
fn drive(scenario: &str, floor_percent: u8) -> Vec<String> {
    let _alone = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let seconds = std::env::var("FIVE_NODES_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let (time, floor) = (format!("{seconds}s"), floor_percent.to_string());
    let args = ["demo", "--nodes", "5", "--scenario", scenario, "--drive", &time, "--floor", &floor];
    let done = quorumgate(Path::new(env!("CARGO_MANIFEST_DIR")), &args);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let table = said.split_once("\n\n").map_or(said.as_str(), |(_, table)| table);
    println!("{scenario}, {time}:\n{table}");
    assert!(said.contains("verdict: "), "{said}{}", String::from_utf8_lossy(&done.stderr));
    let broken: Vec<String> =
        said.lines().filter_map(|line| Some(line.strip_prefix("BROKEN  ")?.to_owned())).collect();
    assert_eq!(done.status.success(), broken.is_empty(), "{said}");
    // Never over a bound; this depends on no machine.
    support::always(!broken.iter().any(|why| why.contains("over the bound")), || format!("{broken:?}"));
    broken
}

/// A stall of a busy machine may leave some requests undecided.
fn but_for_stalls(broken: Vec<String>) -> Vec<String> {
    broken.into_iter().filter(|why| !why.contains("undecided")).collect()
}

#[test]
fn three_a_second_is_used_on_five_nodes_and_none_of_them_starves() {
    support::in_calm(|| {
        assert_eq!(but_for_stalls(drive("tiny", 90)), [""; 0]);
    });
}

#[test]
fn a_tenant_that_swings_to_one_node_finds_its_tokens_there() {
    support::in_calm(|| {
        assert_eq!(but_for_stalls(drive("skew", 85)), [""; 0]);
    });
}

#[test]
fn a_tenant_at_a_thousand_times_its_limit_raises_no_log_and_harms_nobody() {
    support::in_calm(|| {
        let broken = but_for_stalls(drive("overload", 90));
        // How long answers take, whether all of the flood can be sent, and what a stall costs, is the machine's affair as well.
        let of_the_machine = ["median", "too slow", "were not served"];
        let ours = |why: &&String| !of_the_machine.iter().any(|word| why.contains(word));
        assert_eq!(broken.iter().filter(ours).collect::<Vec<_>>(), [""; 0]);
    });
}
