//! Who is at the far end of a client's connection. Known once, and the same for all its requests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use config::action::Scheme;
use config::node::HttpFile;
use http::HeaderValue;
use ipnet::IpNet;

/// Which of those that connect speak for others. The node file's.
#[derive(Debug, Default)]
pub struct Proxies {
    trusted: Vec<IpNet>,
    announcing: Vec<IpNet>,
}

impl Proxies {
    /// As the node file says.
    pub fn new(file: &HttpFile) -> Self {
        Self { trusted: file.trusted_proxies.clone(), announcing: file.proxy_protocol_from.clone() }
    }

    /// Whether its forwarded fields are believed.
    pub fn is_trusted(&self, address: IpAddr) -> bool {
        is_in(&self.trusted, address)
    }

    /// Whether its connections begin with a PROXY header.
    pub fn announces(&self, address: IpAddr) -> bool {
        is_in(&self.announcing, address)
    }
}

fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// The far end of one connection.
#[derive(Debug)]
pub struct Caller {
    /// Its address: the socket's, or the one that a PROXY header named.
    pub peer: SocketAddr,
    /// How it speaks to us.
    pub scheme: Scheme,
    /// What its verified certificate says, for upstreams.
    pub certificate: Option<HeaderValue>,
    /// Who else is believed.
    pub proxies: Arc<Proxies>,
    /// Whether what it says of the hops before it is believed.
    pub is_trusted: bool,
    /// Its address, as a field says it.
    pub address_field: HeaderValue,
    /// The port that it came to, likewise.
    pub port_field: HeaderValue,
}

impl Caller {
    /// One that came to `port`.
    pub fn new(peer: SocketAddr, scheme: Scheme, port: u16, proxies: Arc<Proxies>) -> Self {
        let address = peer.ip().to_canonical();
        let field = HeaderValue::try_from(address.to_string());
        Self {
            peer,
            scheme,
            certificate: None,
            is_trusted: proxies.is_trusted(address),
            proxies,
            address_field: field.expect("an address is a field value"),
            port_field: HeaderValue::from(port),
        }
    }

    /// One that nothing is known of but its address.
    pub fn plain(peer: SocketAddr) -> Self {
        Self::new(peer, Scheme::Http, Scheme::Http.port(), Arc::default())
    }
}
