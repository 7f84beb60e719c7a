//! Reads the command line, nothing else.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = quorumgate::command::Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(cli.carry_out()),
        Err(error) => Err(format!("starting the runtime: {error}")),
    };
    match ended {
        Ok(code) => code,
        Err(text) => {
            // Standard error may be on the very disk that is full: that is no reason to end in another way.
            let _ = writeln!(std::io::stderr(), "quorumgate: {}", text.trim_end());
            ExitCode::from(2)
        }
    }
}
