//! Durations and sizes as people write them, always with a unit.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads `30s`, `500ms`, `1h30m`.
///
/// # Errors
/// What is wrong, with the fix.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let millis = sum(text, &DURATION_UNITS).ok_or_else(|| match is_bare(text) {
        true => format!("{text} has no unit; write \"{text}s\" for seconds (units: ms, s, m, h, d)"),
        false => {
            format!("{text:?} is no duration; expected such as \"500ms\", \"30s\" or \"1h30m\" (units: ms, s, m, h, d)")
        }
    })?;
    Ok(Duration::from_millis(millis))
}

/// Reads `64MiB`, in bytes.
///
/// # Errors
/// What is wrong, with the fix.
pub fn parse_size(text: &str) -> Result<u64, String> {
    sum(text, &SIZE_UNITS).ok_or_else(|| match is_bare(text) {
        true => format!("{text} has no unit; write \"{text}B\" for bytes (units: B, KiB, MiB, GiB)"),
        false => format!("{text:?} is no size; expected such as \"64MiB\" (units: B, KiB, MiB, GiB)"),
    })
}

/// Writes what [`parse_duration`] reads: `1h30m`, `500ms`, `0s`. Below a millisecond nothing is shown.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (unit, millis) in DURATION_UNITS.iter().rev() {
        let count = left / millis;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            left %= millis;
        }
    }
    text
}

fn is_bare(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// One or more of number and unit, each unit at most once and in falling order.
fn sum(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..digits + letters];
        let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
        if *factor >= smallest {
            return None;
        }
        smallest = *factor;
        total = total.checked_add(number.checked_mul(*factor)?)?;
        rest = &rest[digits + letters..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_show_the_same() {
        for (text, millis) in
            [("500ms", 500), ("30s", 30_000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("1s500ms", 1500)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_has_no_unit_or_a_wrong_one_is_refused() {
        assert_eq!(
            parse_duration("30").unwrap_err(),
            "30 has no unit; write \"30s\" for seconds (units: ms, s, m, h, d)"
        );
        for text in [
            "",
            "s",
            "30 s",
            "-1s",
            "1.5s",
            "30sec",
            "30s1h",
            "1s1s",
            "99999999999999999999s",
            "9999999999999999d",
            "é1s",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        for text in ["64", "64MB", "64M", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }
}
