//! Starts real nodes on loopback ports of their own, and speaks HTTP with them like anybody would.
#![allow(dead_code)] // Each test file uses its own part of this.
#![allow(clippy::disallowed_methods)] // Tests stand outside the product: clients and upstreams of their own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Long enough for a loaded machine; every wait ends at once when its condition holds.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// As long until a connection is up: a listener whose queue is full takes the third knock, after three seconds, or the fourth.
const CONNECT_PATIENCE: Duration = Duration::from_secs(20);

/// A machine that keeps a thread, a processor or a write waiting for so long stands still: a quota's question may have 250 ms for
/// its answer, and a leader is given up after 500 ms of silence, with 150 ms between its words.
const STANDS_STILL: Duration = Duration::from_millis(200);
const ATTEMPTS: usize = 3;

/// A test of what must not happen by itself: an election, an undecided request, a late answer. A machine that stands still makes
/// all of these happen, rightly. So an attempt that fails while it did proves nothing, and is made again from the beginning; one
/// that fails without that has failed, and so has one that broke [`always`].
pub fn in_calm(attempt: impl Fn()) {
    for number in 1..=ATTEMPTS {
        let stop = AtomicBool::new(false);
        let (ended, stood) = std::thread::scope(|scope| {
            let _end = AtEnd(|| stop.store(true, Ordering::SeqCst));
            let watches = [scope.spawn(|| watch_time(&stop)), scope.spawn(|| watch_disk(&stop))];
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&attempt));
            stop.store(true, Ordering::SeqCst);
            (ended, watches.map(|watch| watch.join().expect("no panic")).into_iter().max())
        });
        let stood = stood.unwrap_or_default();
        match ended {
            Ok(()) => return println!("this machine stood still for {stood:?} at the longest"),
            Err(panic)
                if stood >= STANDS_STILL && number < ATTEMPTS && !has_broken_always(panic.as_ref()) =>
            {
                println!(
                    "attempt {number} has failed, but this machine stood still for {stood:?}: once more"
                );
                wait_for_calm();
            }
            Err(panic) => {
                println!(
                    "attempt {number} has failed; this machine stood still for {stood:?} at the longest"
                );
                std::panic::resume_unwind(panic);
            }
        }
    }
}

const ALWAYS: &str = "whatever the machine does: ";

/// What holds on a machine that stands still as well: no bound is exceeded, nobody gets what is another's.
pub fn always(holds: bool, why: impl Fn() -> String) {
    assert!(holds, "{ALWAYS}{}", why());
}

fn has_broken_always(panic: &(dyn std::any::Any + Send)) -> bool {
    panic.downcast_ref::<String>().is_some_and(|why| why.starts_with(ALWAYS))
}

/// Until this machine has not stood still for two seconds; whoever has no calm minute has to do without.
fn wait_for_calm() {
    for _ in 0..30 {
        let stop = AtomicBool::new(false);
        let stood = std::thread::scope(|scope| {
            let watch = scope.spawn(|| watch_time(&stop));
            std::thread::sleep(Duration::from_secs(2));
            stop.store(true, Ordering::SeqCst);
            watch.join().expect("no panic")
        });
        if stood < STANDS_STILL / 2 {
            return;
        }
    }
}

/// The longest time until told to stop for which a thread was not run, or a processor was taken from this machine.
fn watch_time(stop: &AtomicBool) -> Duration {
    let nap = Duration::from_millis(20);
    let mut worst = Duration::ZERO;
    let mut stolen = stolen();
    while !stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        std::thread::sleep(nap);
        let now = self::stolen();
        let taken = now.iter().zip(&stolen).map(|(now, before)| now.saturating_sub(*before)).max();
        worst = worst.max(begun.elapsed().saturating_sub(nap)).max(taken.unwrap_or_default());
        stolen = now;
    }
    worst
}

/// What a hypervisor has taken from each processor so far; nothing where nobody says so.
fn stolen() -> Vec<Duration> {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let processors = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    // The eighth figure, in hundredths of a second.
    let ticks = processors.filter_map(|line| line.split(' ').nth(8)?.parse().ok());
    ticks.map(|ticks: u64| Duration::from_millis(10 * ticks)).collect()
}

/// The longest time until told to stop that a byte took to be on the disk on which tests have their folders.
fn watch_disk(stop: &AtomicBool) -> Duration {
    let mut file = tempfile::tempfile().expect("a temporary file");
    let mut worst = Duration::ZERO;
    while !stop.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        file.write_all(b".").and_then(|()| file.sync_data()).expect("written");
        worst = worst.max(begun.elapsed());
    }
    worst
}

/// Does what it is told when it goes, also when an assertion has failed: whoever loops until told to stop would never end, and
/// neither would the scope that waits for it.
pub struct AtEnd<F: Fn()>(pub F);

impl<F: Fn()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }
}

/// One request on a connection of its own; an error for a node that is not there.
pub fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, CONNECT_PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: api.example\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("content-length: {}\r\n", body.len());
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) =
        text.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other(format!("no head in {text:?}")))?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { dechunk(body) } else { body.to_owned() };
    Ok(Answer { status: status.ok_or_else(|| std::io::Error::other("no status"))?, headers, body })
}

fn dechunk(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        body += &rest[..size];
        text = &rest[size + 2..];
    }
    body
}

/// Ports of this process, below the range from which the kernel takes ports for outgoing connections. Nobody listens on one until
/// its node has started, and other processes of tests look for theirs meanwhile: so each is claimed by the UDP socket of the same
/// number, which nothing here needs, for as long as this process lives.
pub fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static CLAIMS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    loop {
        let offset = NEXT.fetch_add(1, Ordering::SeqCst);
        let port = 10_000 + (u16::try_from(std::process::id() % 15_000).unwrap_or(0) + offset) % 20_000;
        let Ok(claim) = UdpSocket::bind(("127.0.0.1", port)) else { continue };
        CLAIMS.lock().expect("no panic").push(claim);
        // Asked, and not tried: a listener of ours would live on in a process that another test starts at this moment.
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            return port;
        }
    }
}

/// The most tokens that came since `begun`, one in each `every`: as fast as a node's clock may run.
pub fn refilled(begun: Instant, every: Duration) -> usize {
    (begun.elapsed().as_secs_f64() * 1.001 / every.as_secs_f64()) as usize
}

pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A scripted upstream: `/slow` does not answer, everything else answers 200 at once.
pub struct Upstream {
    pub address: SocketAddr,
    script: Arc<Script>,
}

#[derive(Default)]
struct Script {
    served: AtomicUsize,
    /// Whoever waits for an answer to `/slow` is let go.
    let_go: AtomicBool,
    stop: AtomicBool,
}

impl Upstream {
    pub fn start() -> Self {
        let address = loopback(port());
        let listener = TcpListener::bind(address).expect("the port was free a moment ago");
        let script = Arc::<Script>::default();
        let played = script.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if played.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let played = played.clone();
                std::thread::spawn(move || serve(stream, &played));
            }
        });
        Self { address, script }
    }

    /// Ends all connections on which `/slow` was asked for.
    pub fn let_go(&self) {
        self.script.let_go.store(true, Ordering::SeqCst);
    }

    /// Requests that were let through so far, whatever became of their answers.
    pub fn served(&self) -> usize {
        self.script.served.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.script.stop.store(true, Ordering::SeqCst);
        self.let_go();
        // Wakes the accept loop, which then sees the flag.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, script: &Script) {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            bytes.drain(..end + 4);
            script.served.fetch_add(1, Ordering::SeqCst);
            if head.lines().next().is_some_and(|line| line.contains("/slow")) {
                while !script.let_go.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return;
            }
            let body = format!("{{\"head\":{head:?}}}");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
        }
    }
}

/// One node's process.
pub struct Node {
    pub name: String,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    pub peers: SocketAddr,
    file: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Writes a node file into `folder`; `at`: for peers, clients, operators. `others` may name the node itself. `of_http`: what
    /// else stands in `http`, behind a comma.
    fn placed(
        folder: &Path,
        name: &str,
        at: [SocketAddr; 3],
        others: &[(String, SocketAddr)],
        of_http: &str,
        settings: &str,
    ) -> Self {
        let [peers, http, admin] = at;
        let listed: String = others
            .iter()
            .filter(|(other, _)| other != name)
            .map(|(other, address)| format!("    {other}: {address}\n"))
            .collect();
        let listed = if listed.is_empty() { listed } else { format!("  peers:\n{listed}") };
        let text = format!(
            "name: {name}\ndata: data/{name}\ncluster:\n  listen: {peers}\n{listed}\
             \x20 tls: {{ca: pki/ca.pem, certificate: pki/{name}.pem, key: pki/{name}.key}}\n\
             http: {{listen: \"{http}\", workers: 1{of_http}}}\nadmin: {{listen: \"{admin}\"}}\n{settings}"
        );
        let file = folder.join(format!("{name}.yaml"));
        std::fs::write(&file, text).expect("written");
        Self { name: name.to_owned(), http, admin, peers, file, child: None }
    }
}

/// A cluster of real processes in a folder of its own.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub upstream: Upstream,
    pub folder: TempDir,
}

pub fn quorumgate(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorumgate"))
        .args(args)
        .current_dir(folder)
        .output()
        .expect("the binary was built")
}

impl Cluster {
    /// Starts `count` nodes, founds the cluster on the first, and applies `gateway`, in which `@UPSTREAM@` stands for the
    /// upstream's address.
    pub fn start(count: usize, gateway: &str) -> Self {
        Self::start_with(count, gateway, "")
    }

    /// As [`Cluster::start`]; `settings` are added to each node's file.
    pub fn start_with(count: usize, gateway: &str, settings: &str) -> Self {
        Self::start_behind(count, gateway, "", settings)
    }

    /// As [`Cluster::start_with`]; `of_http` stands in each node file's `http`, behind a comma.
    pub fn start_behind(count: usize, gateway: &str, of_http: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let upstream = Upstream::start();
        let names: Vec<String> = (1..=count).map(|number| format!("node-{number}")).collect();
        let mut args = vec!["pki", "--out", "pki"];
        args.extend(names.iter().map(String::as_str));
        let made = quorumgate(folder.path(), &args);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::write(folder.path().join("dev.secret"), "a-test-secret-that-protects-nothing-at-all\n")
            .expect("written");
        let addresses: Vec<[SocketAddr; 3]> =
            names.iter().map(|_| [(); 3].map(|()| loopback(port()))).collect();
        let others: Vec<(String, SocketAddr)> =
            names.iter().cloned().zip(addresses.iter().map(|[cluster, ..]| *cluster)).collect();
        let place = |(name, at): (&String, &[SocketAddr; 3])| {
            Node::placed(folder.path(), name, *at, &others, of_http, settings)
        };
        let nodes = names.iter().zip(&addresses).map(place).collect();
        let mut cluster = Self { nodes, upstream, folder };
        for index in 0..count {
            cluster.start_node(index);
        }
        for index in 0..count {
            cluster.wait(index, "/livez", "live", |answer| answer.status == 200);
        }
        let admin = cluster.nodes[0].admin.to_string();
        let founded = quorumgate(cluster.folder.path(), &["cluster", "init", "--admin", &admin]);
        assert!(founded.status.success(), "{}", String::from_utf8_lossy(&founded.stderr));
        for index in 0..count {
            cluster.wait(index, "/v1/status", "one of all the voters", |answer| {
                let status: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
                let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
                members.len() == count && members.iter().all(|member| member["voter"] == true)
            });
        }
        let applied = cluster.apply(gateway);
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        cluster.wait_until_ready();
        cluster
    }

    /// Starts one more node, whose file names all that are there as peers; it joins by itself. Its index.
    pub fn add_node(&mut self) -> usize {
        let index = self.nodes.len();
        let name = format!("node-{}", index + 1);
        let made = quorumgate(self.folder.path(), &["pki", "--out", "pki", &name]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let others: Vec<(String, SocketAddr)> =
            self.nodes.iter().map(|node| (node.name.clone(), node.peers)).collect();
        let at = [(); 3].map(|()| loopback(port()));
        self.nodes.push(Node::placed(self.folder.path(), &name, at, &others, "", ""));
        self.start_node(index);
        index
    }

    /// Gives a stopped node another address for peers, in its own file alone.
    pub fn move_node(&mut self, index: usize) -> SocketAddr {
        let node = &mut self.nodes[index];
        let (old, new) = (node.peers, loopback(port()));
        let text = std::fs::read_to_string(&node.file).expect("readable");
        let moved = text.replace(&format!("listen: {old}"), &format!("listen: {new}"));
        assert_ne!(moved, text, "the file names the old address");
        std::fs::write(&node.file, moved).expect("written");
        node.peers = new;
        new
    }

    /// Runs `quorumgate cluster …` against a node's door, as one types it.
    pub fn cluster(&self, index: usize, args: &[&str]) -> Output {
        let admin = self.nodes[index].admin.to_string();
        let args = [&["cluster"], args, &["--admin", &admin]].concat();
        quorumgate(self.folder.path(), &args)
    }

    pub fn start_node(&mut self, index: usize) {
        self.start_as(index, Command::new(env!("CARGO_BIN_EXE_quorumgate")));
    }

    /// Under a shell's `ulimit -f`, so that no file of the node may be larger: works like a full disk, for anybody.
    pub fn start_node_without_room(&mut self, index: usize) {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -f 128; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_quorumgate")]);
        self.start_as(index, shell);
    }

    /// From now on no file of a running node may be larger.
    pub fn take_room_from(&self, index: usize) {
        let child = self.nodes[index].child.as_ref().expect("it is running");
        let pid = rustix::process::Pid::from_child(child);
        let limit = rustix::process::Rlimit { current: Some(128 << 10), maximum: Some(128 << 10) };
        rustix::process::prlimit(Some(pid), rustix::process::Resource::Fsize, limit).expect("it is ours");
    }

    /// How a process ended by itself, if it has.
    pub fn ended(&mut self, index: usize) -> Option<std::process::ExitStatus> {
        let child = self.nodes[index].child.as_mut().expect("it was started");
        let status = child.try_wait().expect("it can be waited for")?;
        self.nodes[index].child = None;
        Some(status)
    }

    /// Waits until a process has ended by itself, doing `meanwhile` again and again.
    pub fn wait_for_end(&mut self, index: usize, meanwhile: impl Fn(&Self)) -> std::process::ExitStatus {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.ended(index) {
                return status;
            }
            meanwhile(self);
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{} did not end in time\n{}", self.nodes[index].name, self.log(index));
    }

    fn start_as(&mut self, index: usize, mut command: Command) {
        let node = &mut self.nodes[index];
        let log = self.folder.path().join(format!("{}.log", node.name));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        let child = command
            .args(["run", "--config"])
            .arg(&node.file)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary was built");
        node.child = Some(child);
    }

    /// SIGKILL.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.nodes[index].child.take() {
            child.kill().expect("it was running");
            child.wait().expect("it can be waited for");
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self, index: usize) -> std::process::ExitStatus {
        self.signal(index, rustix::process::Signal::TERM);
        self.nodes[index].child.take().expect("it was running").wait().expect("it can be waited for")
    }

    pub fn pid(&self, index: usize) -> u32 {
        self.nodes[index].child.as_ref().expect("it is running").id()
    }

    pub fn signal(&self, index: usize, signal: rustix::process::Signal) {
        let child = self.nodes[index].child.as_ref().expect("it is running");
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, signal).expect("it is running");
    }

    pub fn apply(&self, gateway: &str) -> Output {
        let text = gateway.replace("@UPSTREAM@", &self.upstream.address.to_string());
        std::fs::write(self.folder.path().join("gateway.yaml"), text).expect("written");
        let running = self.nodes.iter().find(|node| node.child.is_some()).expect("a node runs");
        quorumgate(self.folder.path(), &["apply", "--admin", &running.admin.to_string(), "gateway.yaml"])
    }

    pub fn token(&self, tenant: &str, scopes: &[&str]) -> String {
        let mut args = vec!["token", "--tenant", tenant];
        for scope in scopes {
            args.extend(["--scope", scope]);
        }
        let minted = quorumgate(self.folder.path(), &args);
        assert!(minted.status.success(), "{}", String::from_utf8_lossy(&minted.stderr));
        String::from_utf8_lossy(&minted.stdout).trim().to_owned()
    }

    pub fn get(&self, index: usize, path: &str, token: Option<&str>) -> Answer {
        self.try_get(index, path, token)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", self.nodes[index].name, self.log(index)))
    }

    pub fn try_get(&self, index: usize, path: &str, token: Option<&str>) -> std::io::Result<Answer> {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<(&str, &str)> =
            bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        request(self.nodes[index].http, "GET", path, &headers, "")
    }

    /// `count` requests at once, in turn over all nodes; how many got each status. What no leader was asked about in time is
    /// neither admitted nor refused, and is asked again.
    pub fn burst(&self, count: usize, path: &str, token: &str) -> std::collections::BTreeMap<u16, usize> {
        let bearer = format!("Bearer {token}");
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..count)
                .map(|number| {
                    let to = self.nodes[number % self.nodes.len()].http;
                    let bearer = bearer.as_str();
                    scope.spawn(move || {
                        let until = Instant::now() + PATIENCE;
                        loop {
                            let headers = [("authorization", bearer)];
                            let answer = request(to, "GET", path, &headers, "").expect("the node runs");
                            if !answer.body.contains("quota-undecided") || Instant::now() > until {
                                return answer.status;
                            }
                        }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let mut counts = std::collections::BTreeMap::new();
        for status in statuses {
            *counts.entry(status).or_default() += 1;
        }
        counts
    }

    /// Light load: asks every node in turn until told to stop; how many requests, and every answer that was not 200.
    pub fn ask_all(&self, path: &str, token: &str, stop: &AtomicBool) -> (usize, Vec<String>) {
        let (mut count, mut failed) = (0, Vec::new());
        while !stop.load(Ordering::SeqCst) {
            let node = count % self.nodes.len();
            match self.try_get(node, path, Some(token)) {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => failed.push(format!("node {node}: {} {}", answer.status, answer.body)),
                Err(error) => failed.push(format!("node {node}: {error}")),
            }
            count += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        (count, failed)
    }

    /// An answer that a leader gave: what no leader was asked about in time costs nothing, and is asked again.
    pub fn decided(&self, index: usize, path: &str, token: &str) -> Answer {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(index, path, Some(token));
            if !answer.body.contains("quota-undecided") {
                return answer;
            }
            assert!(Instant::now() < until, "undecided: {answer:?}\n{}", self.log(index));
        }
    }

    /// Spends `count` tokens in turn over all nodes.
    pub fn spend(&self, count: usize, path: &str, token: &str) {
        for number in 0..count {
            let answer = self.decided(number % self.nodes.len(), path, token);
            assert_eq!(answer.status, 200, "after {number}: {answer:?}");
        }
    }

    /// Spends of `/stock` at a node until the node holds more than it has spent; how many were spent.
    pub fn hold_some_stock(&self, index: usize, token: &str) -> usize {
        let mut spent = 0;
        while self.status(index)["leases"]["tokens"].as_u64().expect("a number") < 5 {
            assert_eq!(self.decided(index, "/stock", token).status, 200, "after {spent}");
            spent += 1;
        }
        spent
    }

    /// What is left of `/stock`, spent at a node.
    pub fn rest_of_stock(&self, index: usize, token: &str) -> usize {
        (0..).take_while(|_| self.decided(index, "/stock", token).status == 200).count()
    }

    /// From the operators' door.
    pub fn admin(&self, index: usize, path: &str) -> Answer {
        request(self.nodes[index].admin, "GET", path, &[], "").expect("the node runs")
    }

    pub fn status(&self, index: usize) -> serde_json::Value {
        request(self.nodes[index].admin, "GET", "/v1/status", &[], "").expect("the node runs").json()
    }

    /// Waits until every running node is ready and sees a leader.
    pub fn wait_until_ready(&self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].child.is_some() {
                self.wait(index, "/readyz", "ready", |answer| {
                    let readiness: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
                    readiness["status"] == "ready"
                });
            }
        }
    }

    pub fn wait(&self, index: usize, path: &str, what: &str, holds: impl Fn(&Answer) -> bool) {
        let until = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < until {
            match request(self.nodes[index].admin, "GET", path, &[], "") {
                Ok(answer) if holds(&answer) => return,
                Ok(answer) => last = answer.body,
                Err(error) => last = error.to_string(),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{} was not {what} in time; last: {last}\n{}", self.nodes[index].name, self.log(index));
    }

    pub fn leader(&self) -> usize {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let running = (0..self.nodes.len()).filter(|index| self.nodes[*index].child.is_some());
            // A process that was started a moment ago does not listen yet.
            let leads = |index: &usize| {
                request(self.nodes[*index].admin, "GET", "/v1/status", &[], "")
                    .is_ok_and(|answer| answer.json()["role"] == "leader")
            };
            if let Some(leader) = running.into_iter().find(leads) {
                return leader;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no leader in time");
    }

    pub fn log(&self, index: usize) -> String {
        let file = self.folder.path().join(format!("{}.log", self.nodes[index].name));
        std::fs::read_to_string(file).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// The gateway document of these tests.
pub const GATEWAY: &str = "
upstreams:
  echo: {endpoints: [\"http://@UPSTREAM@\"]}
  hasty: {endpoints: [\"http://@UPSTREAM@\"], response_timeout: 1s}
  nobody: {endpoints: [\"http://127.0.0.1:1\"], connect_timeout: 1s}
issuers:
  dev: {issuer: quorumgate-dev, audiences: [quorumgate], keys: [{kid: dev, algorithm: HS256, secret: {file: dev.secret}}]}
quotas:
  five-a-minute: {key: tenant, limit: 5/min}
  one-in-thirty: {key: tenant, limit: 1/30s}
  ten-an-hour: {key: tenant, limit: {at_most: 10 in any 1h}}
  plenty: {key: tenant, limit: 100/s}
routes:
  - {name: orders, match: {path: /orders, methods: [GET]}, upstream: echo, access: {issuers: [dev], scopes: [\"orders:read\"]}, quotas: [five-a-minute]}
  - {name: rare, match: {path: /rare}, upstream: echo, access: {issuers: [dev], scopes: []}, quotas: [one-in-thirty]}
  - {name: hourly, match: {path: /hourly}, upstream: echo, access: {issuers: [dev], scopes: []}, quotas: [ten-an-hour]}
  - {name: many, match: {path: /many}, upstream: echo, access: {issuers: [dev], scopes: []}, quotas: [plenty]}
  - {name: late, match: {path: /many/slow}, upstream: hasty, access: {issuers: [dev], scopes: []}, quotas: [plenty]}
  - {name: dead, match: {path: /dead}, upstream: nobody, access: {issuers: [dev], scopes: []}, quotas: [plenty]}
";

/// The same with `/stock`: a tenant has 60 at once, and then one a minute.
pub fn gateway_with_stock() -> String {
    let quotas = "quotas:\n  stock: {key: tenant, limit: {rate: 1/min, burst: 60}}\n";
    let routes = "routes:\n  - {name: stock, match: {path: /stock}, upstream: echo, access: {issuers: [dev], scopes: []}, \
                  quotas: [stock]}\n";
    GATEWAY.replace("quotas:\n", quotas).replace("routes:\n", routes)
}
