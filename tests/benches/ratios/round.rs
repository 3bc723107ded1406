//! Rounds of Rotacast and of its floors over one bus, in turn.

use std::time::Duration;

use super::carrier::Carrier;
use super::raw::{Raw, Signatures};
use super::rotacast::Rotacast;
use super::{load, median, messages, milliseconds};

/// Rounds before the first one that counts: connections, caches and allocators warm up.
const WARM: usize = 5;
const ROUNDS: usize = 21;

/// Measures and prints.
pub(super) async fn run<C: Carrier>() {
    let Some(carrier) = C::start().await else {
        println!("no server: rounds over {} are not measured ('tools/servers install')\n", C::NAME);
        return;
    };
    let sizes = messages::sizes(C::INSTANCES);
    let mut rotacast = Rotacast::start(&carrier).await;
    let mut raw = Raw::start(&carrier, sizes, Signatures::None).await;
    let mut signed = Raw::start(&carrier, sizes, Signatures::Checked).await;

    let (mut floor, mut signed_floor, mut rounds) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..WARM + ROUNDS {
        // In turn, so that other work on the machine disturbs all of them alike.
        let (a, b, c) = (raw.round().await, signed.round().await, rotacast.round().await);
        if number >= WARM {
            floor.push(a);
            signed_floor.push(b);
            rounds.push(c);
        }
    }
    // Ends before the next measurement, so that it cannot disturb it.
    tokio::join!(raw.stop(), signed.stop(), rotacast.stop());
    drop(carrier);
    let row = |what: &str, time: Duration| println!("  {what:<36} {:>10}", milliseconds(time));
    let ratio = |what: &str, of: Duration, to: Duration| {
        println!("  {what:<36} {:>10.2}", of.as_secs_f64() / to.as_secs_f64());
    };
    println!("Announce → last of {} instances switched, over {}; medians of {ROUNDS} rounds", C::INSTANCES, C::NAME);
    println!(
        "  payloads: announcement {} bytes, report {} bytes; load average {}",
        sizes.announcement,
        sizes.report,
        load()
    );
    let (floor, signed_floor) = (median(floor), median(signed_floor));
    let all = median(rounds.iter().map(|times| times.all).collect());
    row("raw floor", floor);
    row("raw floor with signatures", signed_floor);
    row("Rotacast", all);
    row("  announcement durable", median(rounds.iter().map(|times| times.published).collect()));
    row("  last instance has it", median(rounds.iter().map(|times| times.received).collect()));
    row("  last report sent", median(rounds.iter().map(|times| times.sent).collect()));
    row("  last report read and checked", median(rounds.iter().map(|times| times.read).collect()));
    row("  last report folded", all);
    ratio("Rotacast / raw floor", all, floor);
    ratio("Rotacast / raw floor with signatures", all, signed_floor);
    println!();
}
