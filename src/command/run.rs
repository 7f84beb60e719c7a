//! `quorumgate run`: one node until it is told to stop.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use config::node::{LogFile, NodeFile};

/// `quorumgate run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The node file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Run {
    /// Runs the node.
    ///
    /// # Errors
    /// Mistakes in the file, or why the node could not start or go on.
    pub async fn run(self) -> Result<ExitCode, String> {
        let file = read_node_file(&self.config)?;
        log_to_stderr(&file.log)?;
        crate::node::run(crate::world::real(), file, stop_signal()).await?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads and checks a node file; warnings go to standard error.
pub fn read_node_file(path: &Path) -> Result<NodeFile, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))?;
    let name = path.display().to_string();
    // Absolute, for what is relative is relative to the file and not to where the process was started.
    let folder = std::path::absolute(path)
        .map(|path| path.parent().map(Path::to_owned).unwrap_or_default())
        .map_err(|error| format!("{name}: {error}"))?;
    let checked = config::node::parse(&text, &folder)
        .map_err(|mistakes| config::mistake::render(&name, &text, &mistakes))?;
    eprint!("{}", config::mistake::render(&name, &text, &checked.warnings));
    Ok(checked.value)
}

/// Sends this process's log to standard error.
///
/// # Errors
/// If the filter is not one.
pub fn log_to_stderr(log: &LogFile) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::try_new(&log.filter)
        .map_err(|error| format!("found log filter {:?}: {error}", log.filter))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if log.json {
        lines.json().init();
    } else {
        lines.with_ansi(false).init();
    }
    Ok(())
}

/// Yields at the first SIGTERM or Ctrl-C. Without signals a node would be impossible to stop in order, so a
/// failure to hear them counts as one.
pub async fn stop_signal() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(error) => tracing::error!(%error, "cannot hear SIGTERM"),
        }
    };
    tokio::select! {
        biased;
        () = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
