//! The copy in which mistakes are planted: a clone of the commit at hand, with a folder for what is built that stays from
//! one mistake to the next. The repository itself is left alone.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::patch::{FOLDER, Mutant};

const PROFILE: &str = "mutants";
const PACKAGE: &str = "quorumgate-simulation";
/// Lines of what a failed command said that are passed on.
const LAST: usize = 40;

/// The repository that the working directory is in.
///
/// # Errors
/// If there is none, or no git.
pub fn root() -> Result<PathBuf, String> {
    let here = env::current_dir().map_err(|error| error.to_string())?;
    let found = git(&here, ["rev-parse", "--show-toplevel"]).map(PathBuf::from)?;
    if found.join(FOLDER).is_dir() {
        return Ok(found);
    }
    Err(format!(
        "found no {FOLDER} in {}, wanted to be started in this project's repository",
        found.display()
    ))
}

/// The copy.
pub struct Scratch {
    root: PathBuf,
    tree: PathBuf,
    target: PathBuf,
    commit: String,
    sources: String,
}

/// What the simulator, the product and their tests are built from.
const SOURCES: [&str; 9] = [
    "HEAD:Cargo.lock",
    "HEAD:Cargo.toml",
    "HEAD:config",
    "HEAD:cluster",
    "HEAD:src",
    "HEAD:tests",
    "HEAD:simulation/Cargo.toml",
    "HEAD:simulation/src",
    "HEAD:simulation/mutants/weather",
];

impl Scratch {
    /// A copy of `root`'s commit under `dir`, as it is.
    ///
    /// # Errors
    /// What git or the disk says.
    pub fn of(root: &Path, dir: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let dir = dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?;
        let (tree, target) = (dir.join("tree"), dir.join("target"));
        let commit = git(root, ["rev-parse", "HEAD"])?;
        if !tree.exists() {
            git(
                root,
                [
                    OsStr::new("clone"),
                    "--quiet".as_ref(),
                    "--shared".as_ref(),
                    "--no-checkout".as_ref(),
                    root.as_ref(),
                    tree.as_ref(),
                ],
            )?;
        }
        git(&tree, ["checkout", "--quiet", "--force", "--detach", &commit])?;
        let ids = git(root, ["rev-parse"].into_iter().chain(SOURCES))?;
        let sources = ids.lines().map(|id| id.get(..12).unwrap_or(id)).collect::<Vec<_>>().join("-");
        Ok(Self { root: root.to_owned(), tree, target, commit, sources })
    }

    /// What is built of the commit, by name: another one with the same sources finds the same.
    pub fn sources(&self) -> &str {
        &self.sources
    }

    /// Where its sources are.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Takes out the last mistake and plants this one.
    ///
    /// # Errors
    /// If the patch does not fit the commit.
    pub fn apply(&self, mutant: &Mutant) -> Result<(), String> {
        git(&self.tree, ["checkout", "--quiet", "--force", "--", "."])?;
        let file = self.root.join(FOLDER).join(format!("{}.patch", mutant.name));
        git(&self.tree, [OsStr::new("apply"), file.as_ref()]).map(drop).map_err(|why| {
            format!("the patch does not apply to commit {}, make it anew:\n{why}", self.commit)
        })
    }

    /// Builds the simulator; yields its binary.
    ///
    /// # Errors
    /// If it does not compile.
    pub fn build(&self) -> Result<PathBuf, String> {
        let mut cargo = self.command("cargo");
        cargo.args(["build", "--quiet", "--profile", PROFILE, "--package", PACKAGE]);
        said(&mut cargo)?.map_err(|said| format!("it does not compile, mend the patch:\n{}", last(&said)))?;
        Ok(self.target.join(PROFILE).join(PACKAGE))
    }

    /// Runs a command line in the copy: what it said, as an error if it failed.
    ///
    /// # Errors
    /// If there is no shell.
    pub fn shell(&self, command: &str) -> Result<Result<String, String>, String> {
        said(self.command("sh").args(["-c", command]))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_TERM_COLOR", "never");
        command.stdin(Stdio::null());
        command
    }
}

/// The last lines of what was said.
pub fn last(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(LAST)..].join("\n")
}

/// What a command said, as an error if it failed.
fn said(command: &mut Command) -> Result<Result<String, String>, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } =
        command.output().map_err(|error| format!("{program}, which this needs: {error}"))?;
    let said = format!("{}{}", String::from_utf8_lossy(&stderr), String::from_utf8_lossy(&stdout));
    Ok(if status.success() { Ok(said) } else { Err(said) })
}

fn git<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Result<String, String> {
    let mut git = Command::new("git");
    said(git.arg("-C").arg(dir).args(args))?.map(|said| said.trim().to_owned())
}
