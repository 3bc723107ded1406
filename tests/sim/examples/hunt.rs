#![allow(clippy::print_stdout, missing_docs)]
use rotacast_simulator::{Mutant, Setup, World};
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let seeds: u64 = args[0].parse().unwrap_or(300);
    let filter = args.get(1).cloned().unwrap_or_default();
    if filter == "none" {
        let from: u64 = args.get(2).and_then(|a| a.parse().ok()).unwrap_or(0);
        let mut counts = rotacast_simulator::Counts::default();
        let mut bad = std::collections::BTreeMap::<String, (u64, u64, String)>::new();
        for seed in from..from + seeds {
            let mut w = World::new(Setup::seed(seed));
            if let Err(v) = w.run() {
                let key: String = v.split(" at ").next().unwrap_or_default().into();
                let e = bad.entry(key).or_insert((0, seed, v.chars().take(400).collect()));
                e.0 += 1;
            }
            counts.add(&w.counts);
        }
        println!("{counts:?}\n{bad:#?}");
        return;
    }
    for mutant in Mutant::all() {
        let name = mutant.to_string();
        if !name.contains(&filter) {
            continue;
        }
        if let Some(d) = rotacast_simulator::directed::directed(mutant, true) { println!("   directed {name}: {d:?} control {:?}", rotacast_simulator::directed::directed(mutant, false)); if d.is_err() { continue; } }
        let start = std::time::Instant::now();
        let mut other = None;
        let found = (0..seeds).find_map(|seed| {
            let v = World::new(Setup::broken(seed, mutant)).run().err()?;
            if let Err(c) = World::new(Setup::broken(seed, mutant).control()).run() { println!("   CONTROL {seed}: {}", c.chars().take(160).collect::<String>()); return None; }
            if v.starts_with("L ") || v.starts_with("L:") {
                other.get_or_insert((seed, v));
                return None;
            }
            Some((seed, v))
        });
        let text = |f: Option<(u64, String)>| {
            f.map(|(s, v)| {
                format!("seed {s}: {}", v.lines().next().unwrap_or_default().chars().take(110).collect::<String>())
            })
        };
        println!(
            "{:6} ms {name:45} {}",
            start.elapsed().as_millis(),
            text(found.clone()).unwrap_or_else(|| format!("-- NOT; {:?}", text(other)))
        );
    }
}
