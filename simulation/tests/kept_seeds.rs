//! Plans that once broke a promise keep it now, for ever: `seeds/*.yaml`, each with what it found on its first lines.

use std::path::Path;
use std::process::Command;

#[test]
fn no_kept_plan_breaks_a_promise_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut plans: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    plans.sort();
    assert!(!plans.is_empty(), "no plan is kept");
    for plan in plans {
        let text = std::fs::read_to_string(&plan).expect("it can be read");
        assert!(text.starts_with("# Seed"), "{} does not say why it is kept", plan.display());
        let ran = Command::new(env!("CARGO_BIN_EXE_quorumgate-simulation")).arg("replay").arg(&plan).output();
        let ran = ran.expect("the simulator was built with this test");
        assert!(
            ran.status.success(),
            "{}: {}{}",
            plan.display(),
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
    }
}
