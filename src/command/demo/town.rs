//! A throw-away cluster on this machine: a folder with certificates and files, an echo upstream and three real
//! child processes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use config::ids::NodeName;
use hyper::Method;

use crate::command::client;
use crate::command::echo::{Echo, Recorder};

/// The longest wait for the cluster to form.
const FORM_WITHIN: Duration = Duration::from_secs(60);
const CALL_WITHIN: Duration = Duration::from_secs(2);

/// One child process and where it is reached.
#[derive(Debug)]
pub struct DemoNode {
    /// `node-1` …
    pub name: String,
    /// Clients' door.
    pub http: SocketAddr,
    /// Operators' door.
    pub admin: SocketAddr,
    /// Its node file.
    pub file: PathBuf,
    child: Option<Child>,
}

impl DemoNode {
    /// Whether its process was started and not killed since.
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }
}

/// The cluster, its upstream and its folder. Dropping it ends the children and removes the folder.
#[derive(Debug)]
pub struct Town {
    /// The nodes, in order.
    pub nodes: Vec<DemoNode>,
    /// Serves until it is dropped.
    _echo: Echo,
    /// What reached the upstream.
    pub recorder: Arc<Recorder>,
    folder: tempfile::TempDir,
}

/// The secret of the demo's tokens; it protects nothing.
const SECRET: &str = "a-demo-secret-that-protects-nothing-at-all";

impl Town {
    /// Builds the folder and starts `count` nodes and the upstream; the first founds the cluster, the others join it.
    ///
    /// # Errors
    /// A text for the operator, with the end of a node's log where that helps.
    pub async fn start(count: usize, gateway: &str) -> Result<Self, String> {
        let folder =
            tempfile::Builder::new().prefix("quorumgate-demo-").tempdir().map_err(|e| e.to_string())?;
        let recorder = Arc::new(Recorder::default());
        let echo =
            crate::command::echo::start(loopback(0), recorder.clone()).await.map_err(|e| e.to_string())?;
        let names: Vec<String> = (1..=count).map(|number| format!("node-{number}")).collect();
        let parsed: Result<Vec<NodeName>, _> = names.iter().map(|name| NodeName::parse(name)).collect();
        crate::command::pki::write_pki(&folder.path().join("pki"), &parsed.map_err(|e| e.to_string())?)
            .map_err(|e| e.to_string())?;
        write(&folder.path().join("dev.secret"), SECRET)?;
        write(
            &folder.path().join("gateway.yaml"),
            &gateway.replace("@UPSTREAM@", &echo.address.to_string()),
        )?;

        let ports = free_ports(count * 3)?;
        let mut nodes = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let [cluster, http, admin] = [0, 1, 2].map(|kind| loopback(ports[index * 3 + kind]));
            let peers: String = (0..count)
                .filter(|other| *other != index)
                .map(|other| format!("    {}: {}\n", names[other], loopback(ports[other * 3])))
                .collect();
            let file = folder.path().join(format!("{name}.yaml"));
            write(&file, &node_file(name, cluster, http, admin, &peers))?;
            nodes.push(DemoNode { name: name.clone(), http, admin, file, child: None });
        }
        let mut town = Self { nodes, _echo: echo, recorder, folder };
        for index in 0..count {
            town.spawn(index)?;
        }
        town.form().await?;
        Ok(town)
    }

    /// The folder with everything in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder after the town has gone, for a look at logs.
    pub fn keep_folder(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// Starts the process of node `index`, which goes on with whatever its disk holds.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn spawn(&mut self, index: usize) -> Result<(), String> {
        let binary = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
        let node = &mut self.nodes[index];
        let log = self.folder.path().join(format!("{}.log", node.name));
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(|e| e.to_string())?;
        let child = Command::new(&binary)
            .args(["run", "--config"])
            .arg(&node.file)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("starting {}: {error}", binary.display()))?;
        node.child = Some(child);
        Ok(())
    }

    /// SIGKILL, by process id, and waits for the end.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.nodes[index].child.take() {
            // It may have ended by itself; then there is nothing left to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    async fn form(&mut self) -> Result<(), String> {
        let until = Instant::now() + FORM_WITHIN;
        self.until(until, "/livez", "live", |_| true).await?;
        let body = Bytes::new();
        let founded = client::call(
            self.nodes[0].admin,
            Method::POST,
            "/v1/cluster/init",
            "application/json",
            body,
            FORM_WITHIN,
        );
        let founded = founded.await?;
        if !founded.status.is_success() {
            return Err(format!(
                "cluster init: {} {}",
                founded.status,
                String::from_utf8_lossy(&founded.body)
            ));
        }
        let count = self.nodes.len();
        self.until(until, "/v1/status", "member of the cluster", move |status| {
            let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
            members.len() == count && members.iter().all(|member| member["voter"] == true)
        })
        .await?;
        let document = std::fs::read(self.folder.path().join("gateway.yaml")).map_err(|e| e.to_string())?;
        let applied = client::call(
            self.nodes[0].admin,
            Method::POST,
            "/v1/document",
            "application/yaml",
            document.into(),
            FORM_WITHIN,
        );
        let applied = applied.await?;
        if !applied.status.is_success() {
            return Err(format!("apply: {} {}", applied.status, String::from_utf8_lossy(&applied.body)));
        }
        self.until(until, "/readyz", "ready", |status| status["status"] == "ready").await
    }

    /// Waits until every running node answers `path` with JSON (or a plain success) that `holds`.
    ///
    /// # Errors
    /// Which node did not become `what` in time, and the end of its log.
    pub async fn until(
        &mut self,
        until: Instant,
        path: &str,
        what: &str,
        holds: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<(), String> {
        for index in 0..self.nodes.len() {
            while let Some(child) = self.nodes[index].child.as_mut() {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(format!(
                        "{} ended: {status}\n{}",
                        self.nodes[index].name,
                        self.log_end(index)
                    ));
                }
                let node = &self.nodes[index];
                let body = Bytes::new();
                let answer =
                    client::call(node.admin, Method::GET, path, "application/json", body, CALL_WITHIN).await;
                if let Ok(answer) = answer
                    && answer.status.is_success()
                    && holds(&serde_json::from_slice(&answer.body).unwrap_or_default())
                {
                    break;
                }
                if Instant::now() > until {
                    let name = &self.nodes[index].name;
                    return Err(format!("{name} was not {what} in time\n{}", self.log_end(index)));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    fn log_end(&self, index: usize) -> String {
        let file = self.folder.path().join(format!("{}.log", self.nodes[index].name));
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        for index in 0..self.nodes.len() {
            self.kill(index);
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Ports that were free a moment ago, below the range from which the kernel takes ports for outgoing connections: a node
/// that is started again must find its own.
fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    let first = 12_000 + u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    let free: Vec<u16> =
        (first..30_000).filter(|port| TcpListener::bind(loopback(*port)).is_ok()).take(count).collect();
    if free.len() < count {
        return Err(format!("found {} free ports from {first} on, wanted {count}", free.len()));
    }
    Ok(free)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("writing {}: {error}", path.display()))
}

fn node_file(name: &str, cluster: SocketAddr, http: SocketAddr, admin: SocketAddr, peers: &str) -> String {
    format!(
        "name: {name}
data: data/{name}
cluster:
  listen: {cluster}
  peers:
{peers}  tls: {{ca: pki/ca.pem, certificate: pki/{name}.pem, key: pki/{name}.key}}
http: {{listen: {http}, workers: 1}}
admin: {{listen: {admin}}}
debug: {{stamp_admissions: true}}
"
    )
}

/// A token for the demo's issuer.
pub fn token(tenant: &str, client: &str) -> Result<String, String> {
    crate::command::token::development(SECRET.as_bytes(), tenant, client, &["orders:read", "reports:read"])
}
