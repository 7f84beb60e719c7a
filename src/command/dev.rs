//! `quorumgate dev`: one node in front of your own service, no file to write.

use std::net::SocketAddr;
use std::process::ExitCode;

use super::{apply, cluster, run};

/// `quorumgate dev`.
#[derive(Debug, clap::Args)]
pub struct Dev {
    /// Your service: `http://host:port`.
    #[arg(long, value_name = "URL")]
    upstream: String,
    /// What one client address may send: `100/s`, `5/min`.
    #[arg(long, value_name = "RATE")]
    limit: String,
    /// Where clients connect.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The operators' door.
    #[arg(long, default_value = "127.0.0.1:9101", value_name = "ADDRESS")]
    admin: SocketAddr,
}

impl Dev {
    /// Runs until Ctrl-C.
    ///
    /// # Errors
    /// Mistakes in what was asked for, or why the node could not start or go on.
    pub async fn run(self) -> Result<ExitCode, String> {
        let document = self.document()?;
        let folder = tempfile::Builder::new()
            .prefix("quorumgate-dev-")
            .tempdir()
            .map_err(|error| error.to_string())?;
        let node_text = format!(
            "name: dev\ndata: data\ncluster: {{listen: \"{}\", plaintext: true}}\n\
             http: {{listen: \"{}\"}}\nadmin: {{listen: \"{}\"}}\nlog: {{filter: warn}}\n",
            free_address()?,
            self.listen,
            self.admin
        );
        let file = config::node::parse(&node_text, folder.path())
            .map_err(|mistakes| config::mistake::render("dev", &node_text, &mistakes))?
            .value;
        run::log_to_stderr(&file.log)?;
        let set_up = async {
            wait_until_live(self.admin).await?;
            cluster::found(self.admin).await?;
            apply::apply(self.admin, &document, Some(0)).await?;
            println!("http://{} -> {}, {} for each client address", self.listen, self.upstream, self.limit);
            println!("try:   curl -i http://{}/", self.listen);
            println!("look:  quorumgate cluster status --admin {}", self.admin);
            Ok::<(), String>(())
        };
        let node = run::node(file);
        tokio::pin!(node);
        tokio::select! {
            biased;
            ended = &mut node => Ok(ended),
            ready = set_up => {
                ready?;
                Ok(node.await)
            }
        }
    }

    fn document(&self) -> Result<config::gateway::GatewayDocument, String> {
        let text = format!(
            "upstreams:\n  service: {{endpoints: [{:?}]}}\nquotas:\n  per-address: {{key: address, limit: {:?}}}\n\
             routes:\n  - {{name: everything, match: {{path: /}}, upstream: service, access: public, quotas: [per-address]}}\n",
            self.upstream, self.limit
        );
        let checked = config::gateway::parse(&text)
            .map_err(|mistakes| config::mistake::render("dev", &text, &mistakes))?;
        eprint!("{}", config::mistake::render("dev", &text, &checked.warnings));
        Ok(checked.value)
    }
}

/// A loopback address for peers, of whom there are none: the node file wants an address that could be told to them.
fn free_address() -> Result<SocketAddr, String> {
    std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("no free port on 127.0.0.1: {error}"))
}

async fn wait_until_live(admin: SocketAddr) -> Result<(), String> {
    let within = std::time::Duration::from_secs(10);
    let until = std::time::Instant::now() + within;
    loop {
        let live = super::client::call(
            admin,
            hyper::Method::GET,
            "/livez",
            "text/plain",
            bytes::Bytes::new(),
            within,
        )
        .await;
        match live {
            Ok(_) => return Ok(()),
            Err(error) if std::time::Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}
