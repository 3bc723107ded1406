#![allow(clippy::print_stdout, missing_docs)]
use rotacast_simulator::small::{configurations, search};
use rotacast_simulator::Mutant;
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let most: usize = args[0].parse().unwrap_or(10_000);
    let mutant = args.get(2).and_then(|n| Mutant::all().find(|m| m.to_string().contains(n.as_str())));
    for bounds in configurations() {
        if args.get(1).is_some_and(|n| n != "all" && bounds.name != n) { continue; }
        let start = std::time::Instant::now();
        let found = search(&bounds, mutant, most);
        println!("{} {:?} {:?}", bounds.name, start.elapsed(), found);
    }
}
