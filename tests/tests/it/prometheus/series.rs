//! The series of a scraped text, and those that an expression names.

use std::collections::{BTreeMap, BTreeSet};

/// Values by label, by name of a series.
#[derive(Default)]
pub(crate) struct Series(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Series {
    pub(crate) fn of(text: &str) -> Self {
        let mut series = Self::default();
        for name in WITHOUT_VALUES {
            if text.contains(&format!("# TYPE {name} ")) {
                series.0.entry(name.to_owned()).or_default();
            }
        }
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (name, labels) = match line.split_once('{') {
                Some((name, rest)) => (name, rest.split_once('}').expect("labels end").0),
                None => (line.split_once(' ').expect("a value").0, ""),
            };
            let known = series.0.entry(name.to_owned()).or_default();
            for (label, value) in matchers(labels).map(|(label, _, value)| (label, value)) {
                known.entry(label).or_default().insert(value);
            }
        }
        series
    }

    /// Everything that an expression names and that the text does not have.
    pub(crate) fn missing(&self, expression: &str) -> Vec<String> {
        let mut missing = Vec::new();
        let mut labels: BTreeSet<&str> = BTreeSet::new();
        for (name, selector) in selectors(expression) {
            let Some(known) = self.0.get(name) else {
                missing.push(format!("{name} in {expression}"));
                continue;
            };
            labels.extend(known.keys().map(String::as_str));
            for (label, operator, value) in matchers(selector).filter(|(label, ..)| !OF_THE_SCRAPE.contains(&&**label))
            {
                let values: Vec<&str> = if operator == "=" { vec![&value] } else { value.split('|').collect() };
                for value in values {
                    if !known.get(&label).is_some_and(|known| known.contains(value)) {
                        missing.push(format!("{name}{{{label}=\"{value}\"}} in {expression}"));
                    }
                }
            }
        }
        for label in grouped_by(expression) {
            if !labels.contains(label) && !OF_THE_SCRAPE.contains(&label) {
                missing.push(format!("label {label} in {expression}"));
            }
        }
        missing
    }
}

/// Series that are declared and have no value in this test: it has no certificate.
const WITHOUT_VALUES: [&str; 1] = ["rotacast_certificate_expires_timestamp_seconds"];

/// Labels that Prometheus adds.
const OF_THE_SCRAPE: [&str; 2] = ["job", "instance"];

/// Prometheus' own series.
const OF_PROMETHEUS: [&str; 1] = ["up"];

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'
}

/// The names of Rotacast's series in an expression, each with the matchers in its braces.
pub(crate) fn selectors(expression: &str) -> Vec<(&str, &str)> {
    let bytes = expression.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'"' {
            // Values may look like names.
            at = expression[at + 1..].find('"').map_or(bytes.len(), |length| at + length + 2);
        } else if is_name(bytes[at]) {
            let end = (at..bytes.len()).find(|at| !is_name(bytes[*at])).unwrap_or(bytes.len());
            let (name, rest) = (&expression[at..end], &expression[end..]);
            if name.starts_with("rotacast_") || name.starts_with("process_") {
                let selector =
                    rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
                found.push((name, selector));
            }
            at = end;
        } else {
            at += 1;
        }
    }
    found
}

/// Whether an expression names any series that the text has.
pub(crate) fn speaks_of_something(expression: &str) -> bool {
    !selectors(expression).is_empty() || OF_PROMETHEUS.iter().any(|name| expression.contains(name))
}

/// Label, operator and value of each matcher.
fn matchers(selector: &str) -> impl Iterator<Item = (String, String, String)> {
    selector.split(',').map(str::trim).filter(|matcher| !matcher.is_empty()).map(|matcher| {
        let (label, rest) = matcher.split_once(['=', '!']).expect("a matcher has an operator");
        let (operator, value) = rest.split_once('"').expect("a matcher's value is quoted");
        let operator = if operator.contains('~') { "=~" } else { "=" };
        (label.trim().to_owned(), operator.to_owned(), value.trim_end_matches('"').to_owned())
    })
}

/// Every label in a `by (…)`.
fn grouped_by(expression: &str) -> Vec<&str> {
    let groups = expression.split("by (").skip(1).filter_map(|rest| rest.split_once(')'));
    groups.flat_map(|(labels, _)| labels.split(',').map(str::trim)).collect()
}

#[test]
fn what_is_not_there_is_found() {
    let series = Series::of("# HELP x y\nrotacast_a_total{kind=\"one\",operation=\"get\"} 1\nrotacast_b 2\n");
    let missing = |expression| series.missing(expression);
    assert_eq!(
        missing("sum by (job, kind) (rate(rotacast_a_total{kind=~\"one\", job=\"x\"}[5m])) > rotacast_b"),
        [""; 0]
    );
    for (expression, expected) in [
        ("rotacast_c", "rotacast_c in"),
        ("rotacast_b + rotacast_a", "rotacast_a in"),
        ("rotacast_a_total{kind=~\"one|two\"}", "rotacast_a_total{kind=\"two\"}"),
        ("rotacast_a_total{sort=\"one\"}", "rotacast_a_total{sort=\"one\"}"),
        ("sum by (sort) (rotacast_a_total)", "label sort in"),
    ] {
        let found = missing(expression);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{expression}: {found:?}");
    }
}
