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

/// What `--expect` makes of the examples: the exit code, what is printed, and what is written for a CI.
fn expecting(name: &str, text_of_it: &str) -> (Option<i32>, String, String) {
    let file = |ending: &str| {
        std::env::temp_dir().join(format!("quorumgate-expecting-{name}-{}.{ending}", std::process::id()))
    };
    let (expect, junit) = (file("yaml"), file("xml"));
    std::fs::write(&expect, text_of_it).expect("the folder for such files is there");
    let args = ["run", "--gateway", "gateway.yaml", "--weather", "weather.yaml"];
    let files = ["--expect", &expect.to_string_lossy(), "--junit", &junit.to_string_lossy()];
    let ran = simulator(&[&args[..], &files].concat());
    let verdicts = std::fs::read_to_string(&junit).unwrap_or_default();
    std::fs::remove_file(&expect).expect("it was written");
    let _ = std::fs::remove_file(&junit);
    (ran.status.code(), text(&ran), verdicts)
}

#[test]
fn an_expectation_that_is_met_is_a_success_and_one_that_is_not_has_a_code_of_its_own() {
    let (code, said, verdicts) = expecting("met", "expect: [{admitted: 0, tenant: mallory}]");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("as expected: admitted 0, tenant mallory: found 0 of"), "{said}");
    assert!(verdicts.contains("tests=\"2\"") && verdicts.contains("failures=\"0\""), "{verdicts}");
    let (code, said, verdicts) =
        expecting("unmet", "expect: [{served: 100%, tenant: mallory}, {recovery: at most 1m}]");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("NOT AS EXPECTED: served 100%, tenant mallory: found 0.000% (0 of"), "{said}");
    assert!(said.contains("as expected: recovery at most 60s") && !said.contains("BROKEN"), "{said}");
    assert!(verdicts.contains("tests=\"3\"") && verdicts.contains("failures=\"1\""), "{verdicts}");
    let code =
        simulator(&["run", "--seed", "1", "--for", "3s", "--calm", "--log", "/nowhere/at/all"]).status.code();
    assert_eq!(code, Some(2), "a file that cannot be written is nobody's broken promise");
    let (code, said, verdicts) = expecting("wrong", "expect: [{served: much}]");
    assert_eq!((code, verdicts.as_str()), (Some(2), ""), "{said}");
    assert!(said.contains("expect[0].served: found \"much\", wanted requests"), "{said}");
}

#[test]
fn an_outage_that_did_not_happen_is_not_as_expected() {
    // given a plan in which a node is killed that is down already, and an expectation that is met all the same
    let plan = std::env::temp_dir().join(format!("quorumgate-missed-{}.yaml", std::process::id()));
    let text_of_it = "{for: 9s, calm: 5s, nodes: 3, expect: [{recovery: at most 1m}], \
        weather: [at 1s kill node-2 for 2s, at 2s kill node-2 for 1s]}";
    std::fs::write(&plan, text_of_it).expect("the folder for such files is there");
    let ran = simulator(&["replay", &plan.to_string_lossy()]);
    std::fs::remove_file(&plan).expect("it was written");
    // then it is said
    assert_eq!(ran.status.code(), Some(3), "{}", text(&ran));
    assert!(
        text(&ran).contains("NOT AS EXPECTED: at 2s kill node-2 for 1s happens: found nobody"),
        "{}",
        text(&ran)
    );
}

#[test]
fn mistakes_are_told_with_their_places() {
    let ran = simulator(&["run", "--gateway", "weather.yaml"]);
    assert_eq!(ran.status.code(), Some(2));
    assert!(
        text(&ran).contains("weather.yaml:2:1: error: for: found the unknown key \"for\""),
        "{}",
        text(&ran)
    );
}
