//! `quorumgate token`: a development token.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cluster::world::UnixMs;

use crate::auth::mint::{Grant, mint};

/// `quorumgate token`. The defaults fit `config/examples/three/gateway.yaml`.
#[derive(Debug, clap::Args)]
pub struct Token {
    /// A file with the issuer's HS256 secret, 32 bytes or more.
    #[arg(long, value_name = "FILE", default_value = "dev.secret")]
    secret_file: PathBuf,
    /// The tenant claim.
    #[arg(long)]
    tenant: String,
    /// The client (`sub`).
    #[arg(long, default_value = "developer")]
    client: String,
    /// A scope that the token grants; repeat for more.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Another claim, as `name=text`; the same name again makes it a list.
    #[arg(long = "claim", value_name = "CLAIM", value_parser = super::claim)]
    claims: Vec<(String, String)>,
    /// `kid` header.
    #[arg(long, default_value = "dev")]
    kid: String,
    /// `iss` claim.
    #[arg(long, default_value = "quorumgate-dev")]
    issuer: String,
    /// `aud` claim.
    #[arg(long, default_value = "quorumgate")]
    audience: String,
    /// How long it is good for.
    #[arg(long, default_value = "1h", value_parser = super::duration)]
    lifetime: Duration,
}

impl Token {
    /// Prints the token.
    ///
    /// # Errors
    /// If the secret cannot be read or is too short.
    pub fn run(self) -> Result<ExitCode, String> {
        let mut secret = std::fs::read(&self.secret_file)
            .map_err(|error| format!("reading {}: {error}", self.secret_file.display()))?;
        if secret.last() == Some(&b'\n') {
            secret.pop();
        }
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        let grant = Grant {
            kid: &self.kid,
            issuer: &self.issuer,
            audience: &self.audience,
            tenant: &self.tenant,
            client: &self.client,
            scopes: &scopes,
            claims: &super::by_name(self.claims),
            lifetime: self.lifetime,
        };
        println!("{}", mint(&secret, &grant, now_ms())?);
        Ok(ExitCode::SUCCESS)
    }
}

/// A token as the demo's document wants it.
pub fn development(secret: &[u8], tenant: &str, client: &str, scopes: &[&str]) -> Result<String, String> {
    let claims = BTreeMap::new();
    let grant = Grant {
        kid: "dev",
        issuer: "quorumgate-dev",
        audience: "quorumgate",
        tenant,
        client,
        scopes,
        claims: &claims,
        lifetime: Duration::from_secs(3600),
    };
    mint(secret, &grant, now_ms())
}

fn now_ms() -> UnixMs {
    crate::world::real().clock.wall()
}
