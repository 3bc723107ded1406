#![allow(clippy::print_stdout, missing_docs)]
use rotacast_simulator::{Mutant, Setup, World, shrink::shrink};
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let seed: u64 = args[0].parse().unwrap_or(0);
    let mutant = args.get(1).and_then(|n| Mutant::all().find(|m| m.to_string().contains(n.as_str())));
    let mut setup = mutant.map_or(Setup::seed(seed), |m| Setup::broken(seed, m));
    if args.len() > 2 {
        setup = setup.control();
    }
    if args.get(2).is_some_and(|a| a == "run") {
        setup.mutant = mutant;
        setup.told = true;
        let mut w = World::new(setup);
        let r = w.run();
        for l in w.story.take().unwrap_or_default() {
            println!("{l}");
        }
        println!("{r:?}");
        return;
    }
    match shrink(&setup) {
        Some(s) => println!("{s}"),
        None => println!("holds"),
    }
}
