//! Is a server ready? The probe asks in the server's own protocol, because an open port shows little.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Timeout of one answer. A server that is still starting may accept a connection and answer much later, so the next
/// probe may get an answer earlier.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// More bytes than any of these answers has.
const ANSWER_BYTES: u64 = 64 * 1024;

/// What to ask.
#[derive(Debug, Clone)]
pub(crate) enum Probe {
    /// HTTP GET of `path` answers 200 and contains `expected`.
    Http { port: u16, path: &'static str, expected: &'static str },
    /// A connection as user `postgres` is asked for its password.
    Postgres { port: u16 },
    /// A broker says which requests it takes.
    Kafka { port: u16 },
}

impl Probe {
    /// `Ok` if ready, else what was found instead.
    pub(crate) async fn ask(&self) -> Result<(), String> {
        let answer = match self {
            Self::Http { port, path, expected } => {
                tokio::time::timeout(ANSWER_LIMIT, http(*port, path, expected)).await
            }
            Self::Kafka { port } => tokio::time::timeout(ANSWER_LIMIT, kafka(*port)).await,
            Self::Postgres { port } => tokio::time::timeout(ANSWER_LIMIT, postgres(*port)).await,
        };
        answer.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_LIMIT:?}")))
    }
}

async fn http(port: u16, path: &str, expected: &str) -> Result<(), String> {
    let mut stream = connect(port).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let (mut stream, mut bytes) = (stream.take(ANSWER_BYTES), Vec::new());
    loop {
        let ended = stream.read_buf(&mut bytes).await.map_err(|error| error.to_string())? == 0;
        let answer = String::from_utf8_lossy(&bytes);
        // Not every server closes the connection when it is asked to.
        if answer.starts_with("HTTP/1.1 200") && answer.contains(expected) {
            return Ok(());
        }
        if ended {
            return Err(answer.into_owned());
        }
    }
}

async fn postgres(port: u16) -> Result<(), String> {
    let mut startup = Vec::new();
    startup.extend_from_slice(&196_608_u32.to_be_bytes()); // protocol 3.0
    startup.extend_from_slice(b"user\0postgres\0database\0postgres\0\0");
    let length = u32::try_from(startup.len() + 4).expect("a few dozen bytes");
    let mut stream = connect(port).await?;
    stream.write_all(&length.to_be_bytes()).await.map_err(|error| error.to_string())?;
    stream.write_all(&startup).await.map_err(|error| error.to_string())?;
    // 'R' asks for authentication; 'E' is an error, such as "the database system is starting up".
    match stream.read_u8().await {
        Ok(b'R') => Ok(()),
        Ok(kind) => Err(format!("expected an authentication request, found message {:?}", char::from(kind))),
        Err(error) => Err(error.to_string()),
    }
}

async fn kafka(port: u16) -> Result<(), String> {
    // ApiVersions (18), version 0, correlation id 1, client id "probe": answered without authentication.
    const REQUEST: [u8; 19] = *b"\0\0\0\x0f\0\x12\0\0\0\0\0\x01\0\x05probe";
    let mut stream = connect(port).await?;
    stream.write_all(&REQUEST).await.map_err(|error| error.to_string())?;
    let mut head = [0; 10];
    stream.read_exact(&mut head).await.map_err(|error| error.to_string())?;
    // Length, correlation id, error code.
    match head {
        [_, _, _, _, 0, 0, 0, 1, 0, 0] => Ok(()),
        found => Err(format!("expected the versions of Kafka's requests, found {found:?}")),
    }
}

async fn connect(port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| error.to_string())
}
