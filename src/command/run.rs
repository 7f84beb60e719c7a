//! `quorumgate run`: one node until it is told to stop.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cluster::fatal::Fatal;
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
    /// Mistakes in the file.
    pub async fn run(self) -> Result<ExitCode, String> {
        let file = read_node_file(&self.config)?;
        log_to_stderr(&file.log)?;
        Ok(node(file).await)
    }
}

/// Runs a node of the real world to its end. If it could not start or go on, standard error has the reason, and the exit
/// code is one that a supervisor can act on (the README has the table).
pub async fn node(file: NodeFile) -> ExitCode {
    hear_file_size_limit();
    match crate::node::run(crate::world::real(), file, stop_signal()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Standard error may be on the very disk that is full: that is no reason to end in another way.
            let _ = writeln!(std::io::stderr(), "quorumgate: {why}");
            ExitCode::from(match why {
                Fatal::Setup(_) => 2,
                Fatal::Internal(_) => EX_SOFTWARE,
                Fatal::Storage(_) => EX_IOERR,
            })
        }
    }
}

/// As in BSD's sysexits.h.
const EX_SOFTWARE: u8 = 70;
/// As in BSD's sysexits.h.
const EX_IOERR: u8 = 74;

/// A write beyond `ulimit -f` is then an error that names the file, like a full disk, and not a process that is gone
/// without a word.
fn hear_file_size_limit() {
    let limit = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // The handler stays when its stream is dropped; without it the signal does what it always did.
    drop(tokio::signal::unix::signal(limit));
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
