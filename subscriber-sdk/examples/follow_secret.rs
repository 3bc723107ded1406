//! The smallest service: says which version of a secret it uses, as that changes. Against `rotacast dev`:
//!
//! ```console
//! export ROTACAST_CLUSTER=dev ROTACAST_IDENTITY=… ROTACAST_TRUST=…    # as `rotacast dev` prints them
//! cargo run -p rotacast-subscriber --example follow_secret -- grpc://127.0.0.1:7400 demo/token
//! ```
#![allow(clippy::print_stdout)]

use std::time::Duration;

use rotacast_subscriber::Subscriber;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(bus), Some(secret)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("expected: follow_secret <grpc://…> <secret>");
    };
    let rotacast = Subscriber::builder().service("follower").connect(&bus).await?;
    let secret = rotacast.secret(&secret).await?;
    println!("version {}", secret.current()?.version());
    let mut changes = secret.subscribe();
    let mut failures = 0_u64;
    let mut uses = 0_u64;
    // One future for the whole loop: it notices a Ctrl-C whatever else happens at that moment.
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    loop {
        tokio::select! {
            version = changes.next() => println!("version {} after {uses} uses, {failures} failed", version?),
            _ = pace.tick() => match secret.current() {
                Ok(_) => uses += 1,
                Err(error) => {
                    failures += 1;
                    println!("FAILED: {error}");
                }
            },
            _ = &mut stop => break,
        }
    }
    rotacast.leave().await?;
    println!("left after {uses} uses, {failures} failed");
    Ok(())
}
