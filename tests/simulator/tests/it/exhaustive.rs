//! Small worlds, searched to the end. `tools/test --long` allows one fault of the network more in each and takes much
//! longer.

use rotacast_simulator::small::{Reached, configurations, search};

/// Most states of one small world.
const MOST: usize = 500_000;

#[test]
fn small_worlds_keep_every_promise_in_every_order() {
    let deeper = std::env::var_os("ROTACAST_LONG").is_some();
    let most = if deeper { 20 * MOST } else { MOST };
    let mut all = Reached::default();
    for bounds in configurations(deeper) {
        let most = if deeper { most } else { bounds.most.unwrap_or(most) };
        let found = search(&bounds, None, most);
        println!(
            "{}: {} states, {} steps, {} deep, all of them: {}; {:?}",
            bounds.name, found.states, found.steps, found.depth, found.complete, found.reached
        );
        assert!(found.violation.is_none(), "{}: {:?}", bounds.name, found.violation);
        assert!(found.complete || deeper || bounds.most.is_some(), "{} has more than {most} states", bounds.name);
        assert!(found.reached.retired + found.reached.recovered > 0, "{}: nothing is ever retired", bounds.name);
        all.add(&found.reached);
    }
    assert!(all.after_release > 0 && all.after_expiry > 0 && all.after_takeover > 0, "{all:?}");
    assert!(all.after_rollback > 0 && all.after_supersede > 0 && all.with_joiner > 0, "{all:?}");
    assert!(all.recovered > 0, "{all:?}");
}
