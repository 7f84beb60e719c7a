//! Tests in Rust run the simulator by its library, and get the history that the command line gives.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use quorumgate_simulation::Simulation;

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(file)
}

#[test]
fn the_examples_go_as_expected_and_as_by_the_command_line() {
    // given the example's files
    let simulation = Simulation::default().gateway(example("gateway.yaml")).weather(example("weather.yaml"));
    // when they run, twice by the library and once by the command line
    let ran = simulation.clone().expect(example("expect.yaml")).seed(7).run().expect("the files are good");
    let again = simulation.seed(7).run().expect("the files are good");
    let args = ["run", "--gateway", "gateway.yaml", "--weather", "weather.yaml", "--seed", "7"];
    let by_command = Command::new(env!("CARGO_BIN_EXE_quorumgate-simulation"))
        .args(args)
        .current_dir(example(""))
        .output();
    let said =
        String::from_utf8(by_command.expect("it was built with this test").stdout).expect("it is text");
    // then it is one history, and all of it as expected
    ran.assert_kept();
    assert!(!ran.expected.is_empty() && ran.expected.iter().all(|outcome| outcome.met), "{:?}", ran.expected);
    assert_eq!(ran.history, again.history);
    assert!(said.contains(&format!("history {} ", ran.history)), "{} is not in {said}", ran.history);
}

#[test]
#[should_panic(expected = "did not go as expected: served 100%")]
fn what_is_not_as_expected_fails_a_test() {
    let calm = Simulation::default().seed(1).nodes(1).lasting(Duration::from_secs(3)).calm();
    let file = std::env::temp_dir().join(format!("quorumgate-library-{}.yaml", std::process::id()));
    std::fs::write(&file, "expect: [{served: 100%}]").expect("the folder for such files is there");
    let ran = calm.expect(&file).run();
    std::fs::remove_file(&file).expect("it was written");
    ran.expect("the file is good").assert_kept();
}
