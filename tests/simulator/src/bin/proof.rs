//! Everything that the simulator shows, in one run, in numbers.
//!
//! `cargo run --release -p rotacast-simulator --bin proof -- [--seeds N] [--restored N] [--restores N] [--first N] [--states N] [--mutant-seeds N]
//! [--deeper] [--quiet]`
#![allow(clippy::print_stdout)]

use std::process::ExitCode;

use rotacast_simulator::kill::kill;
use rotacast_simulator::scenario::scenarios;
use rotacast_simulator::shrink::shrink;
use rotacast_simulator::small::{Reached, configurations, search};
use rotacast_simulator::table::{ROWS, Table};
use rotacast_simulator::{Counts, Mutant, Setup, World};

struct Options {
    seeds: u64,
    restored: u64,
    restores: u64,
    first: u64,
    states: usize,
    mutant_seeds: u64,
    deeper: bool,
    quiet: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        seeds: 10_000,
        restored: 3_000,
        restores: 1,
        first: 0,
        states: 500_000,
        mutant_seeds: 600,
        deeper: false,
        quiet: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            text.parse::<u64>().map_err(|_| format!("{word}: expected a number, found {text}"))
        };
        match word.as_str() {
            "--seeds" => options.seeds = number()?,
            "--restored" => options.restored = number()?,
            "--restores" => options.restores = number()?,
            "--first" => options.first = number()?,
            "--states" => options.states = usize::try_from(number()?).map_err(|error| error.to_string())?,
            "--mutant-seeds" => options.mutant_seeds = number()?,
            "--deeper" => options.deeper = true,
            "--quiet" => options.quiet = true,
            _ => {
                return Err(format!(
                    "unknown: {word}; expected --seeds, --restored, --restores, --first, --states, --mutant-seeds, --deeper or --quiet"
                ));
            }
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let restores = options.restores;
    let good = [
        seeds(&options, options.seeds, Setup::seed),
        seeds(&options, options.restored, |seed| Setup::restored(seed, restores)),
        small_worlds(&options),
        mutants(&options),
        rows(&options),
    ];
    if good.into_iter().all(|good| good) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seeds(options: &Options, seeds: u64, setup: impl Fn(u64) -> Setup) -> bool {
    let mut counts = Counts::default();
    let mut failed = 0;
    for seed in options.first..options.first + seeds {
        let mut world = World::new(setup(seed));
        if let Err(violation) = world.run() {
            failed += 1;
            println!("seed {seed}: {violation}");
            if let Some(story) = shrink(&setup(seed)) {
                println!("{story}");
            }
        }
        counts.add(&world.counts);
    }
    let hours = counts.time as f64 / 3.6e12;
    println!("seeds run           {seeds} (from {}), {failed} of them broke a promise", options.first);
    println!("simulated hours     {hours:.1}, {} events, {} terms", counts.events, counts.terms);
    println!("credentials ended   {} in {} rotations", counts.retired, counts.rotations);
    println!("stores restored     {} in {} of the worlds", counts.restores, counts.restored);
    println!("faults injected     {}", counts.faults.values().sum::<u64>());
    if !options.quiet {
        for (fault, count) in &counts.faults {
            println!("  {:<18}{count:>10}", format!("{fault:?}"));
        }
    }
    failed == 0
}

fn small_worlds(options: &Options) -> bool {
    let mut all = Reached::default();
    let (mut states, mut steps, mut good) = (0, 0, true);
    let worlds = configurations(options.deeper);
    for bounds in &worlds {
        let found = search(bounds, None, options.states);
        (states, steps) = (states + found.states, steps + found.steps);
        all.add(&found.reached);
        let whole = if found.complete { "all" } else { "not all" };
        if !options.quiet {
            println!(
                "  {}: {} states ({whole}), {} steps, {} deep",
                bounds.name, found.states, found.steps, found.depth
            );
        }
        if let Some((way, violation)) = found.violation {
            good = false;
            println!("{}: {violation}\n{way:?}", bounds.name);
        }
    }
    println!("states explored     {states} in {} small worlds, {steps} steps", worlds.len());
    println!(
        "  retires there     {}: after a release {}, after a lease's end {}, after a takeover {}, after a rollback {}, of a replaced version {}",
        all.retired, all.after_release, all.after_expiry, all.after_takeover, all.after_rollback, all.after_supersede
    );
    good
}

fn mutants(options: &Options) -> bool {
    if !cfg!(rotacast_mutants) {
        println!("mutants killed      none in this build, whose cores are those that ship: `tools/mutants --proof`");
        return true;
    }
    let (mut killed, mut covered, mut alive) = (0, 0, Vec::new());
    for mutant in Mutant::all() {
        if let Some(why) = mutant.covered() {
            covered += 1;
            if !options.quiet {
                println!("  {mutant}: {why}");
            }
            continue;
        }
        match kill(mutant, 0..options.mutant_seeds) {
            Some(kill) => {
                killed += 1;
                if !options.quiet {
                    let by = kill.seed.map_or_else(|| "directed test".to_owned(), |seed| format!("seed {seed}"));
                    println!("  {mutant}: {by}: {}", kill.violation);
                }
            }
            None => alive.push(mutant.to_string()),
        }
    }
    let all = killed + covered + alive.len();
    println!(
        "mutants killed      {killed} / {all}; {covered} more have another rule behind them; unnoticed: {alive:?}"
    );
    alive.is_empty()
}

fn rows(options: &Options) -> bool {
    let (mut green, mut good) = (0, true);
    for scenario in scenarios() {
        let needs = || if cfg!(rotacast_mutants) { scenario.needs_its_rules() } else { Ok(()) };
        match scenario.holds().and_then(|()| needs()) {
            Ok(()) => {
                green += 1;
                if !options.quiet {
                    println!("  {}", scenario.name);
                }
            }
            Err(problem) => {
                good = false;
                println!("  {problem}");
            }
        }
    }
    println!("scenarios green     {green} of {} run in the simulator", scenarios().len());
    match Table::read() {
        Ok(table) => {
            good &= table.problems.is_empty();
            for problem in &table.problems {
                println!("  {problem}");
            }
            // The tests elsewhere are not run here, only found in the sources.
            println!(
                "scenarios shown     {} / {ROWS} by a named test, here or elsewhere; not applicable: {:?}",
                table.shown().count(),
                table.not_applicable
            );
        }
        Err(problem) => {
            good = false;
            println!("docs/understand/scenarios.md cannot be checked: {problem}");
        }
    }
    good
}
