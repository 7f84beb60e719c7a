//! A seed decides everything: the same seed in two processes gives the same history, line by line.

use std::path::Path;
use std::process::Command;

fn history(seed: u64, name: &str) -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let ran = Command::new(env!("CARGO_BIN_EXE_quorumgate-simulation"))
        .args(["run", "--seed", &seed.to_string(), "--trace"])
        .arg(&file)
        .output()
        .expect("the simulator was built with this test");
    assert!(
        ran.status.success(),
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
    std::fs::read_to_string(file).expect("the simulator wrote its trace")
}

#[test]
fn three_whole_nodes_serve_requests_and_the_same_seed_gives_the_same_history() {
    for seed in [7, 8] {
        // given one seed, run in two processes
        let first = history(seed, &format!("first-{seed}"));
        let second = history(seed, &format!("second-{seed}"));
        // when the histories are compared, then no line differs
        let differing = first.lines().zip(second.lines()).enumerate().find(|(_, (a, b))| a != b);
        if let Some((number, (a, b))) = differing {
            panic!("seed {seed}, line {}:\n  {a}\n  {b}", number + 1);
        }
        assert_eq!(first.lines().count(), second.lines().count());
        assert!(first.lines().count() > 100, "a history of {} lines saw nothing", first.lines().count());
    }
}

#[test]
fn another_seed_gives_another_history() {
    assert_ne!(history(1, "seed-1"), history(2, "seed-2"));
}
