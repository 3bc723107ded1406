//! `rotacast dev`: everything in one process and one folder, with no servers and no configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use rotacast_broadcaster::dev::{Dev, Folder};
use rotacast_broadcaster::signal::stop_on_signals;

/// Where the other commands look for a broadcaster and for its operator's key, without a flag.
const USUAL_ADDRESS: &str = "127.0.0.1:7400";
const USUAL_FOLDER: &str = "rotacast-data";

#[derive(Args)]
pub(crate) struct DevArgs {
    /// Where databases, keys and the audit log are kept; made if it is not there.
    #[arg(long, value_name = "FOLDER", default_value = USUAL_FOLDER)]
    data: PathBuf,
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = USUAL_ADDRESS)]
    listen: SocketAddr,
    #[cfg(feature = "demo")]
    #[command(flatten)]
    demo: super::demo::DemoArgs,
    /// What is logged to standard error, e.g. `info` or `rotacast=debug,warn`.
    #[arg(long, env = "ROTACAST_LOG_LEVEL", value_name = "FILTER", default_value = "warn")]
    pub(crate) log: String,
}

pub(crate) async fn run(args: DevArgs) -> anyhow::Result<()> {
    let stop = stop_on_signals()?;
    let dev = Dev::open(&args.data, args.listen).await?;
    #[cfg(feature = "demo")]
    if args.demo.demo {
        return super::demo::run(dev, &args.demo, stop).await;
    }
    print_what_next(dev.folder(), dev.address());
    dev.run(stop).await
}

/// For a person who starts it for the first time.
#[allow(clippy::print_stdout)]
fn print_what_next(folder: &Folder, address: SocketAddr) {
    let (data, keys, token) = (folder.path().display(), folder.keys(), folder.token_file());
    // The commands are given in other shells, from other folders, and reach this broadcaster from this machine.
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (keys, token) = (absolute(&keys), absolute(&token));
    let address = match address.ip().is_unspecified() {
        true => SocketAddr::new(loopback(address), address.port()),
        false => address,
    };
    let is_usual = address.to_string() == USUAL_ADDRESS && folder.path() == Path::new(USUAL_FOLDER);
    let elsewhere = match is_usual {
        true => String::new(),
        false => format!(
            "    export ROTACAST_SERVER=http://{address} ROTACAST_OPERATOR_KEY={}/operator.key\n",
            keys.display()
        ),
    };
    let (keys, token) = (keys.display(), token.display());
    println!(
        "Rotacast is running on {address}, with its data in {data}.

Write a secret's first version, then rotate it:

{elsewhere}    printf 'first value' | rotacast put demo/token --wait
    rotacast rotate demo/token
    rotacast status
    rotacast why demo/token        # what it waits for, and for which instance

Let a service use it:

    export ROTACAST_CLUSTER=dev ROTACAST_IDENTITY={keys}/identity.key ROTACAST_TRUST={keys}/broadcaster.pub
    Subscriber::builder().service(\"my-service\").connect(\"grpc://{address}\")

Watch it at http://{address}/ in a browser; to act there, sign in with the token in {token}.
Or see all of it at work: rotacast dev --demo
Stop with Ctrl-C."
    );
}

/// This machine's own address of the same family.
fn loopback(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}
