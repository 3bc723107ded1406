//! docs/understand/scenarios.md is true of the sources.

use rotacast_simulator::table::{ROWS, Table};

#[test]
fn every_row_names_tests_that_exist() {
    let table = Table::read().unwrap();
    assert!(table.problems.is_empty(), "{:#?}", table.problems);
    let shown: Vec<usize> = table.shown().collect();
    let missing: Vec<usize> =
        (1..=ROWS).filter(|row| !shown.contains(row) && !table.not_applicable.contains(row)).collect();
    assert!(missing.is_empty(), "rows without a test: {missing:?}");
}
