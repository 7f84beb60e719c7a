//! The history of a run: every event that the nodes log, with simulated time, and what clients saw.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::shim;

/// Sends this thread's events to `file` until the guard is dropped.
///
/// # Errors
/// If the file cannot be made.
pub fn to_file(file: &Path) -> io::Result<tracing::subscriber::DefaultGuard> {
    let out = Out(Arc::new(Mutex::new(BufWriter::new(File::create(file)?))));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("debug")
        .with_ansi(false)
        .with_timer(SimTime)
        .with_writer(move || out.clone())
        .finish();
    Ok(tracing::subscriber::set_default(subscriber))
}

struct SimTime;

impl FormatTime for SimTime {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        let elapsed = turmoil::sim_elapsed().unwrap_or_else(shim::now);
        write!(out, "{:>12}", elapsed.as_micros())
    }
}

#[derive(Clone)]
struct Out(Arc<Mutex<BufWriter<File>>>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic happens while the trace is locked").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().expect("no panic happens while the trace is locked").flush()
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // The last lines of a failing run matter most; there is nobody to tell when they cannot be written.
        let _ = self.flush();
    }
}
