//! A TCP proxy that can be told to misbehave.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes of one read.
const CHUNK: usize = 16 * 1024;

/// A proxy on loopback in front of one server.
///
/// It runs on the tokio runtime that started it and ends when dropped, with all its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    fault: watch::Sender<Fault>,
    listener: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault {
    mode: Mode,
    /// Connections opened before this count was reached are closed.
    cuts: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Delay(Duration),
    Stall,
    Refuse,
}

impl Proxy {
    /// Starts one in front of `127.0.0.1:<target>`, passing everything on.
    ///
    /// # Panics
    /// If no port is free.
    #[allow(clippy::unused_async, reason = "it needs the runtime that it is awaited on")]
    pub async fn start(target: u16) -> Self {
        // Bound while the proxy exists, so any free port will do.
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        Self::behind(listener, target)
    }

    /// The same, on the address where this one listens.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn behind(listener: std::net::TcpListener, target: u16) -> Self {
        listener.set_nonblocking(true).expect("sockets can be");
        let listener = TcpListener::from_std(listener).expect("within a runtime");
        let port = listener.local_addr().expect("it is bound").port();
        let (fault, seen) = watch::channel(Fault { mode: Mode::Pass, cuts: 0 });
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
        let listener = tokio::spawn(accept(listener, target, seen));
        Self { port, fault, listener }
    }

    /// Its port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection and every new one at once: a server that is down.
    pub fn refuse(&self) {
        self.fault.send_modify(|fault| {
            fault.mode = Mode::Refuse;
            fault.cuts += 1;
        });
    }

    /// Passes nothing on in either direction, and closes nothing: a network that drops packets. Bytes that were sent
    /// meanwhile arrive after [`Proxy::heal`], as TCP resends them.
    pub fn stall(&self) {
        self.fault.send_modify(|fault| fault.mode = Mode::Stall);
    }

    /// Holds every chunk back for `delay` in each direction.
    pub fn delay(&self, delay: Duration) {
        self.fault.send_modify(|fault| fault.mode = Mode::Delay(delay));
    }

    /// Closes the open connections. New ones work.
    pub fn cut(&self) {
        self.fault.send_modify(|fault| fault.cuts += 1);
    }

    /// Passes everything on again.
    pub fn heal(&self) {
        self.fault.send_modify(|fault| fault.mode = Mode::Pass);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Connections end because the sender of `fault` is dropped with this value.
        self.listener.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, fault: watch::Receiver<Fault>) {
    while let Ok((client, _)) = listener.accept().await {
        if fault.borrow().mode != Mode::Refuse {
            tokio::spawn(carry(client, target, fault.clone()));
        }
    }
}

/// One connection, until either side or a fault closes it.
async fn carry(client: TcpStream, target: SocketAddr, mut fault: watch::Receiver<Fault>) {
    let born = fault.borrow().cuts;
    let (up, down) = (fault.clone(), fault.clone());
    let both = async move {
        let Ok(server) = TcpStream::connect(target).await else { return };
        // Small messages must not wait for each other here: that would be a delay that no test asked for.
        if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
            return; // it was closed meanwhile
        }
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        tokio::join!(copy(client_read, server_write, up), copy(server_read, client_write, down));
    };
    tokio::select! {
        () = both => {}
        _ = fault.wait_for(|fault| fault.cuts != born) => {}
    }
}

/// One direction, until the end of the source, which is passed on, or an error.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut fault: watch::Receiver<Fault>) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let Ok(length) = from.read(&mut chunk).await else { return };
        let Ok(mode) = fault.wait_for(|fault| fault.mode != Mode::Stall).await.map(|fault| fault.mode) else { return };
        if let Mode::Delay(delay) = mode {
            tokio::time::sleep(delay).await;
        }
        let written = if length == 0 { to.shutdown().await } else { to.write_all(&chunk[..length]).await };
        if written.is_err() || length == 0 {
            return;
        }
    }
}
