//! Verdicts as JUnit's XML, which every CI shows.

use std::path::Path;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use crate::run::{Broken, Report};

/// One plan: a case for all promises, and one for each expectation.
pub fn of_plan(name: &str, report: &Report) -> TestSuite {
    let mut suite = TestSuite::new(name);
    let broken = report.broken.as_ref().filter(|_| !report.is_unexpected());
    suite.add_test_case(case(name, "every promise is kept", broken.map(said)));
    for outcome in &report.expected {
        let unmet = (!outcome.met).then(|| (format!("found {}", outcome.found), String::new()));
        suite.add_test_case(case(name, &outcome.expected, unmet));
    }
    suite
}

/// Many seeds: a case for each.
pub fn of_sweep(seeds: impl Iterator<Item = u64>, broken: &[Report]) -> TestSuite {
    let mut suite = TestSuite::new("sweep");
    for seed in seeds {
        let broken =
            broken.iter().find(|report| report.seed == seed).and_then(|report| report.broken.as_ref());
        suite.add_test_case(case("sweep", &format!("seed {seed}"), broken.map(said)));
    }
    suite
}

/// Writes a file of suites.
///
/// # Errors
/// The disk's, with the file's name.
pub fn write(file: &Path, suites: Vec<TestSuite>) -> Result<(), String> {
    let mut report = quick_junit::Report::new("quorumgate-simulation");
    report.add_test_suites(suites);
    let text = report.to_string().map_err(|error| format!("{}: {error}", file.display()))?;
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// What is wrong in a line, and all that is known of it.
fn said(broken: &Broken) -> (String, String) {
    (format!("{} at {} ms: {}", broken.promise, broken.at_ms, broken.how), broken.last.join("\n"))
}

fn case(class: &str, name: &str, wrong: Option<(String, String)>) -> TestCase {
    let status = wrong.map_or_else(TestCaseStatus::success, |(message, description)| {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message(message).set_description(description);
        status
    });
    let mut case = TestCase::new(name, status);
    case.set_classname(class);
    case
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promise::expected::Outcome;

    #[test]
    fn a_broken_promise_and_an_unmet_expectation_are_failures_of_cases_of_their_own() {
        let broken = |promise: &str| Broken {
            promise: promise.to_owned(),
            how: "a < b & c".to_owned(),
            at_ms: 7,
            last: vec!["one".to_owned(), "two".to_owned()],
        };
        let kept = Report { seed: 1, ..Report::default() };
        let lost = Report { seed: 2, broken: Some(broken("exact")), ..Report::default() };
        let outcome = |met| Outcome { expected: format!("refused {met}"), found: "3 of 4".to_owned(), met };
        let expected = vec![outcome(true), outcome(false)];
        let unmet =
            Report { seed: 3, broken: Some(broken(crate::run::UNMET)), expected, ..Report::default() };
        let failures = |suite: &TestSuite| (suite.tests, suite.failures);
        assert_eq!(failures(&of_plan("a", &kept)), (1, 0));
        assert_eq!(failures(&of_plan("b", &lost)), (1, 1));
        assert_eq!(failures(&of_plan("c", &unmet)), (3, 1), "its promises are kept");
        assert_eq!(failures(&of_sweep(0..5, std::slice::from_ref(&lost))), (5, 1));
        let file = std::env::temp_dir().join(format!("quorumgate-junit-{}.xml", std::process::id()));
        write(&file, vec![of_plan("b", &lost)]).expect("the disk has room");
        let text = std::fs::read_to_string(&file).expect("it was written");
        std::fs::remove_file(&file).expect("it is ours");
        assert!(text.contains("exact at 7 ms: a &lt; b &amp; c") && text.contains("one\ntwo"), "{text}");
    }
}
