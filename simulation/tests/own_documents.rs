//! The simulator runs a gateway document and weather that were not made for it: `examples/`.

use std::path::Path;
use std::process::{Command, Output};

fn simulator(args: &[&str]) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let ran =
        Command::new(env!("CARGO_BIN_EXE_quorumgate-simulation")).args(args).current_dir(folder).output();
    ran.expect("the simulator was built with this test")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_examples_keep_every_promise() {
    // given a plan as it is printed, which names no files any more
    let args = ["run", "--gateway", "gateway.yaml", "--weather", "weather.yaml", "--seed", "7"];
    let printed = simulator(&[&args[..], &["--plan"]].concat());
    assert!(printed.status.success(), "{}", text(&printed));
    let plan = std::env::temp_dir().join(format!("quorumgate-own-documents-{}.yaml", std::process::id()));
    std::fs::write(&plan, &printed.stdout).expect("the folder for such files is there");
    // when it runs, and the files it was made of
    let ran = [simulator(&args), simulator(&["replay", &plan.to_string_lossy()])];
    std::fs::remove_file(&plan).expect("it was written");
    // then both keep every promise, with the same history, and callers were admitted
    let [own, again] = ran.map(|ran| {
        assert!(ran.status.success(), "{}", text(&ran));
        text(&ran)
    });
    assert_eq!(own, again);
    let admissions = own.split(" admissions").next().and_then(|before| before.rsplit(' ').next());
    assert!(admissions.is_some_and(|count| count.parse::<u32>().is_ok_and(|count| count > 300)), "{own}");
}

#[test]
fn mistakes_are_told_with_their_places() {
    let ran = simulator(&["run", "--gateway", "weather.yaml"]);
    assert!(!ran.status.success());
    assert!(
        text(&ran).contains("weather.yaml:2:1: error: for: found the unknown key \"for\""),
        "{}",
        text(&ran)
    );
}
