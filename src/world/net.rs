//! TCP sockets of the kernel.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use cluster::world::{BoxFuture, Listener, Net, Share, Stream};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel holds for us until they are accepted.
const BACKLOG: i32 = 1024;

/// The kernel's sockets, and which addresses this process shares among its listeners.
#[derive(Default)]
pub(super) struct Sockets {
    shared: Mutex<BTreeMap<SocketAddr, Weak<()>>>,
}

impl Net for Sockets {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let mut last = None;
            for address in tokio::net::lookup_host((host, port)).await? {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(Box::new(stream) as Box<dyn Stream>);
                    }
                    Err(error) => last = Some(about(&format!("connecting to {address}"), &error)),
                }
            }
            Err(last
                .unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"))))
        })
    }

    fn bind(&self, address: SocketAddr, share: Share) -> io::Result<Box<dyn Listener>> {
        let error = |e: io::Error| about(&format!("listening on {address}"), &e);
        match share {
            Share::Alone => {
                let listener = listen(socket(address, false).map_err(error)?, None).map_err(error)?;
                Ok(Box::new(listener))
            }
            Share::OneOfMany => self.bind_shared(address).map(|l| Box::new(l) as _).map_err(error),
        }
    }
}

impl Sockets {
    fn bind_shared(&self, address: SocketAddr) -> io::Result<Socketed> {
        let mut shared = self.shared.lock();
        shared.retain(|_, sharers| sharers.strong_count() > 0);
        if let Some(sharers) = shared.get(&address).and_then(Weak::upgrade) {
            return listen(socket(address, true)?, Some(sharers));
        }
        // The first of many: with SO_REUSEPORT alone, a second process of the same user would silently take a part
        // of our connections. Without it, a taken port is an error, and port 0 becomes a number.
        let probe = socket(address, false)?;
        let address = local(&probe)?;
        drop(probe);
        let sharers = Arc::new(());
        let listener = listen(socket(address, true)?, Some(sharers.clone()))?;
        shared.insert(address, Arc::downgrade(&sharers));
        Ok(listener)
    }
}

/// A bound socket that does not listen yet.
fn socket(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restarted node does not wait for its predecessor's last connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?.as_socket();
    address.ok_or_else(|| io::Error::other("the socket has no internet address"))
}

fn listen(socket: Socket, sharers: Option<Arc<()>>) -> io::Result<Socketed> {
    socket.listen(BACKLOG)?;
    let address = local(&socket)?;
    Ok(Socketed { waiting: Some(socket.into()), listener: None, address, _sharers: sharers })
}

/// The error with its subject in front, of the same kind.
fn about(subject: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{subject}: {error}"))
}

/// A listening socket. It joins the runtime that accepts first, which need not be the one it was bound in.
struct Socketed {
    waiting: Option<std::net::TcpListener>,
    listener: Option<TcpListener>,
    address: SocketAddr,
    _sharers: Option<Arc<()>>,
}

impl Listener for Socketed {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            if let Some(socket) = self.waiting.take() {
                self.listener = Some(TcpListener::from_std(socket)?);
            }
            let listener = self.listener.as_ref();
            let listener = listener.ok_or_else(|| io::Error::other("the runtime took no listener before"))?;
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Box<dyn Stream>, peer))
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}
