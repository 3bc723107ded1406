//! One HTTP request on loopback, without a client library.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// More bytes than any answer to a test has.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// The body.
    pub body: String,
}

/// GET of `path` at `host:port`: status, and body. For a stream, returns when the server has ended it.
///
/// # Errors
/// A failed connection, or an answer that is not HTTP.
pub async fn get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let answer = exchange(address, path, "GET", &[], "").await?;
    Ok((answer.status, answer.body))
}

/// POST of JSON to `path` at `host:port`, with further headers.
///
/// # Errors
/// As [`get`].
pub async fn post(address: &str, path: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<Answer> {
    let headers: Vec<(&str, &str)> = [("Content-Type", "application/json")].iter().chain(headers).copied().collect();
    exchange(address, path, "POST", &headers, body).await
}

async fn exchange(
    address: &str,
    path: &str,
    method: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let strange = || std::io::Error::other("no HTTP answer");
    let text = String::from_utf8(answer).map_err(|_| strange())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(strange)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(strange)?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body).ok_or_else(strange)? } else { body.to_owned() };
    Ok(Answer { status, head: head.to_owned(), body })
}

fn unchunked(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}
