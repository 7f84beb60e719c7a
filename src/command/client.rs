//! A small HTTP/1.1 client for the operators' door of a node, with a deadline on every call.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// The longest answer that is read.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Sends one request on a connection of its own.
///
/// # Errors
/// A text that says whom was asked, what for, and what went wrong.
pub async fn call(
    node: SocketAddr,
    method: Method,
    path: &str,
    content_type: &str,
    body: Bytes,
    deadline: Duration,
) -> Result<Answer, String> {
    let what = format!("{method} http://{node}{path}");
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(node).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, node.to_string())
            .header(hyper::header::CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let (head, body) =
            sender.send_request(request).await.map_err(|error| error.to_string())?.into_parts();
        let body =
            Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| error.to_string())?.to_bytes();
        driver.abort();
        Ok::<_, String>(Answer { status: head.status, body })
    };
    match tokio::time::timeout(deadline, exchange).await {
        Ok(answer) => answer.map_err(|error| format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: no answer within {deadline:?}")),
    }
}

/// `GET`, then JSON.
///
/// # Errors
/// As [`call`], and when the answer is no success or no JSON.
pub async fn get_json(node: SocketAddr, path: &str, deadline: Duration) -> Result<serde_json::Value, String> {
    let answer = call(node, Method::GET, path, "application/json", Bytes::new(), deadline).await?;
    if !answer.status.is_success() {
        return Err(format!("GET http://{node}{path}: {}", answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("GET http://{node}{path}: {error}"))
}
