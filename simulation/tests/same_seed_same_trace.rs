//! A seed decides everything: the same seed in two processes gives the same history, with a log and without.

use std::process::{Command, Output};

fn simulator(args: &[&str]) -> Output {
    let ran = Command::new(env!("CARGO_BIN_EXE_quorumgate-simulation")).args(args).output();
    ran.expect("the simulator was built with this test")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let compared = simulator(&["meta", "--seeds", "3", "--for", "9s"]);
    assert!(compared.status.success(), "{}", text(&compared));
    assert!(text(&compared).starts_with("3 of 3 seeds identical"), "{}", text(&compared));
}

#[test]
fn another_seed_gives_another_history() {
    let history = |seed: &str| {
        let ran = text(&simulator(&["run", "--seed", seed, "--for", "3s", "--calm", "--nodes", "3"]));
        let name = ran.split("history ").nth(1).and_then(|rest| rest.split(' ').next());
        name.unwrap_or_else(|| panic!("no history in {ran:?}")).to_owned()
    };
    assert_ne!(history("1"), history("2"));
    assert_eq!(history("1"), history("1"));
}
