//! The simulator, by its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorumgate_simulation::command::main()
}
