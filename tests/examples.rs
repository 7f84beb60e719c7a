//! The README's "A cluster by hand", typed as it is printed.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{PATIENCE, quorumgate, request};

/// Every address that the example files and the echo upstream use.
const PORTS: [u16; 10] = [7101, 7102, 7103, 8101, 8102, 8103, 9000, 9101, 9102, 9103];

/// What was started in the background; it ends with the test.
struct Background(Vec<Child>);

impl Drop for Background {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_commands_of_the_readme_work_as_printed() {
    // given the example files in a folder of their own, and nobody on their ports
    let folder = tempfile::tempdir().expect("a temporary folder");
    copy_examples(folder.path());
    let taken = PORTS.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_err());
    if let Some(port) = taken {
        println!("port {port} is taken on this machine: only the files are checked");
    }
    let mut running = Background(Vec::new());
    let mut token = String::new();
    let mut seen = Vec::new();
    // when each line of the block is carried out
    for line in readme_block() {
        let words: Vec<&str> = line.split_whitespace().collect();
        seen.push(words[..words.len().min(2)].join(" "));
        match words.as_slice() {
            // Where the files are, and what the command is called: the folder above, and the binary under test.
            ["cargo", "build", ..] | ["cd", ..] => {}
            ["head", ..] => assert!(shell(folder.path(), &line).success(), "{line}"),
            _ if taken.is_some() && !matches!(words[..], ["quorumgate", "pki" | "check", ..]) => {}
            ["quorumgate", args @ .., "&"] => {
                running.0.push(background(folder.path(), args));
                wait_until_it_listens(args);
            }
            ["quorumgate", args @ ..] => {
                let done = quorumgate(folder.path(), args);
                let said = String::from_utf8_lossy(&done.stdout).into_owned();
                let error = String::from_utf8_lossy(&done.stderr).into_owned();
                assert!(done.status.success(), "{line}\n{said}{error}");
                match args {
                    ["check", files @ ..] => {
                        assert_eq!(said.matches(": good").count(), files.len(), "{said}");
                        assert_eq!(said.matches("warning").count(), 0, "{said}");
                    }
                    ["cluster", "status"] => assert!(said.contains("leader    node-1"), "{said}"),
                    _ => {}
                }
            }
            [assignment, args @ ..] if assignment.starts_with("TOKEN=$(quorumgate") => {
                let args: Vec<&str> = args.iter().map(|word| word.trim_end_matches(')')).collect();
                let minted = quorumgate(folder.path(), &args);
                assert!(minted.status.success(), "{}", String::from_utf8_lossy(&minted.stderr));
                token = String::from_utf8_lossy(&minted.stdout).trim().to_owned();
            }
            ["curl", .., url] => answers_200(url, &token),
            other => panic!("the README says a line that this test does not know: {other:?}"),
        }
    }
    // then every step of the way was there
    for step in ["quorumgate pki", "quorumgate check", "quorumgate run", "quorumgate cluster", "curl -i"] {
        assert!(seen.iter().any(|line| line == step), "{step} is missing: {seen:?}");
    }
    if taken.is_none() {
        // and the nodes that join by themselves serve the same
        for port in [8102, 8103] {
            answers_200(&format!("http://127.0.0.1:{port}/orders/1"), &token);
        }
    }
}

#[test]
fn the_node_file_for_trying_things_out_is_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let done = quorumgate(root, &["check", "config/examples/single.yaml"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

/// The lines of the shell block below "A cluster by hand", without comments.
fn readme_block() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(file).expect("the README is readable");
    let (_, section) = text.split_once("## A cluster by hand").expect("the section exists");
    let (_, block) = section.split_once("```sh\n").expect("it has a block of commands");
    let (block, _) = block.split_once("```").expect("the block ends");
    let lines = block.lines().map(|line| line.split(" #").next().unwrap_or("").trim().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

fn copy_examples(to: &Path) {
    let from: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/three");
    for entry in std::fs::read_dir(from).expect("the examples are there") {
        let file = entry.expect("an entry is readable").path();
        // Only what the repository holds: whoever tries the examples in place leaves secrets and data beside them.
        if file.extension().is_some_and(|extension| extension == "yaml") {
            std::fs::copy(&file, to.join(file.file_name().expect("it has a name"))).expect("copied");
        }
    }
}

fn shell(folder: &Path, line: &str) -> std::process::ExitStatus {
    Command::new("sh").args(["-c", line]).current_dir(folder).status().expect("there is a shell")
}

fn background(folder: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_quorumgate"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary was built")
}

/// Whoever types waits about as long without thinking of it.
fn wait_until_it_listens(args: &[&str]) {
    let port = match args {
        ["run", "--config", file] => {
            let number: u16 = file.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("node-N.yaml");
            9100 + number
        }
        _ => 9000,
    };
    let until = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "{args:?} does not listen on {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// At once on the node that founded the cluster; the others first have to join.
fn answers_200(url: &str, token: &str) {
    let address = url.trim_start_matches("http://");
    let (address, path) = address.split_once('/').expect("the URL has a path");
    let address: SocketAddr = address.parse().expect("an address");
    let bearer = format!("Bearer {token}");
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = request(address, "GET", &format!("/{path}"), &[("authorization", &bearer)], "")
            .expect("it listens");
        if answer.status == 200 {
            assert!(answer.header("ratelimit").is_some(), "{answer:?}");
            return;
        }
        assert!(answer.status == 503 && Instant::now() < until, "{url}: {answer:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
