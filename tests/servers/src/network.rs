//! A network for one process, with a cable that can be pulled.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::until::until_now;
use crate::{Process, Proxy};

/// Time for the kernel to make a namespace, with a margin for a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A network namespace for processes, joined by a virtual cable to a second one, where relays to this machine's
/// loopback listen. With the cable pulled, packets vanish in both directions: sockets stay open and neither side gets
/// an error.
///
/// Both namespaces end with this value, and with the test process however that ends: only two sleeping processes keep
/// them.
#[derive(Debug)]
pub struct Network {
    inside: Process,
    outside: Process,
    relays: Vec<Proxy>,
}

impl Network {
    /// The address of what can be [reached](Network::join) through the cable. It is a loopback address, so it needs no
    /// TLS.
    pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

    /// `None` where none can be made, which is printed: it takes root, `unshare`, `nsenter` and `ip`.
    ///
    /// # Panics
    /// If it can be made but not set up.
    pub async fn make(folder: &Path) -> Option<Self> {
        let possible =
            rustix::process::geteuid().is_root() && run("unshare", ["--net", "ip", "link", "set", "lo", "up"]).is_ok();
        if !possible {
            eprintln!("NO NETWORK NAMESPACE: it takes root, unshare, nsenter and ip");
            return None;
        }
        let inside = namespace("inside", folder).await;
        let outside = namespace("outside", folder).await;
        let network = Self { inside, outside, relays: Vec::new() };
        network.set_up().unwrap_or_else(|problem| panic!("{problem}"));
        Some(network)
    }

    /// The cable has an end on each side. Addresses of 127.0.0.0/8 do not leave a machine without this setting.
    fn set_up(&self) -> Result<(), String> {
        let (inside, outside) = (self.inside.id().to_string(), self.outside.id().to_string());
        run(
            "ip",
            ["link", "add", "cable", "netns", &inside, "type", "veth", "peer", "name", "cable", "netns", &outside],
        )?;
        let gateway = format!("{}/32", Self::GATEWAY);
        for (side, address) in [(&self.inside, "192.0.2.2/30"), (&self.outside, "192.0.2.1/30")] {
            within(side, ["ip", "link", "set", "lo", "up"])?;
            within(side, ["ip", "address", "add", address, "dev", "cable"])?;
            within(side, ["ip", "link", "set", "cable", "up"])?;
            within(side, ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/cable/route_localnet"])?;
        }
        within(&self.inside, ["ip", "route", "delete", "local", "127.0.0.0/8", "dev", "lo", "table", "local"])?;
        within(&self.inside, ["ip", "route", "add", &gateway, "dev", "cable", "src", "192.0.2.2"])
    }

    /// Processes inside reach loopback's `port` at [`Network::GATEWAY`], through the cable.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if the kernel refuses.
    pub fn join(&mut self, port: u16) {
        let address = SocketAddr::from((Self::GATEWAY, port));
        self.relays.push(Proxy::behind(listen(&self.outside, address), port));
    }

    /// Processes inside reach loopback's `port` at `127.0.0.1`, whether or not the cable is plugged in.
    ///
    /// # Panics
    /// As [`Network::join`].
    pub fn share(&mut self, port: u16) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        self.relays.push(Proxy::behind(listen(&self.inside, address), port));
    }

    /// The same command, to run inside.
    #[must_use]
    pub fn enter(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net=/proc/{}/ns/net", self.inside.id())).arg("--");
        inside.arg(command.get_program()).args(command.get_args());
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside
    }

    /// Pulls the cable.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn pull(&self) {
        within(&self.outside, ["ip", "link", "set", "cable", "down"]).unwrap_or_else(|problem| panic!("{problem}"));
    }

    /// Plugs the cable in. Does nothing if it is plugged in.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn plug(&self) {
        within(&self.outside, ["ip", "link", "set", "cable", "up"]).unwrap_or_else(|problem| panic!("{problem}"));
    }
}

/// A sleeping process in a network namespace of its own.
async fn namespace(name: &str, folder: &Path) -> Process {
    let own = std::fs::read_link("/proc/self/ns/net").expect("every process has a network namespace");
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "sleep", "infinity"]);
    let process =
        Process::spawn(&format!("network {name}"), command, &folder.join(format!("network-{name}.log")), None);
    let made =
        || std::fs::read_link(format!("/proc/{}/ns/net", process.id())).is_ok_and(|its| its != own).then_some(());
    until_now(&format!("a network namespace {name}"), LIMIT, made).await;
    process
}

/// Binds in another network namespace: a socket stays in the one that its thread was in when it was made.
fn listen(side: &Process, address: SocketAddr) -> TcpListener {
    let file = format!("/proc/{}/ns/net", side.id());
    let bound = std::thread::spawn(move || -> std::io::Result<TcpListener> {
        let namespace = File::open(file)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        TcpListener::bind(address)
    });
    let bound = bound.join().expect("it does not panic");
    bound.unwrap_or_else(|error| panic!("cannot listen on {address} in another network: {error}"))
}

fn within<const N: usize>(side: &Process, command: [&str; N]) -> Result<(), String> {
    let namespace = format!("--net=/proc/{}/ns/net", side.id());
    run("nsenter", [namespace.as_str(), "--"].into_iter().chain(command))
}

pub(crate) fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let arguments: Vec<&OsStr> = arguments.into_iter().map(OsStr::new).collect();
    let output = Command::new(program).args(&arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {arguments:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;
    use crate::Scratch;

    /// Connects from inside.
    fn connect(network: &Network, address: SocketAddr) -> TcpStream {
        let file = format!("/proc/{}/ns/net", network.inside.id());
        let connected = std::thread::spawn(move || -> std::io::Result<TcpStream> {
            let namespace = File::open(file)?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            TcpStream::connect_timeout(&address, LIMIT)
        });
        connected.join().unwrap().unwrap()
    }

    fn echo(stream: &mut TcpStream, limit: Duration) -> std::io::Result<u8> {
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"x")?;
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pulled_cable_holds_everything_back_and_loses_nothing_but_time() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in server.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
        let scratch = Scratch::new("network");
        let Some(mut network) = Network::make(scratch.path()).await else { return };
        network.join(port);
        network.share(port);
        let (through, around) = ((Network::GATEWAY, port).into(), (Ipv4Addr::LOCALHOST, port).into());
        let (mut through, mut around) = (connect(&network, through), connect(&network, around));
        assert_eq!(echo(&mut through, LIMIT).unwrap(), b'x');
        network.pull();
        let silence = echo(&mut through, Duration::from_millis(300)).unwrap_err();
        assert!(matches!(silence.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{silence}");
        assert_eq!(echo(&mut around, LIMIT).unwrap(), b'x');
        network.plug();
        let mut late = [0];
        through.set_read_timeout(Some(LIMIT)).unwrap();
        through.read_exact(&mut late).unwrap();
        assert_eq!(late, *b"x");
    }
}
