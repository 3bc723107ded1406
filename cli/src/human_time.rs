//! Spans and moments, for people.

use rotacast_protocol::WallTime;

/// `850 ms`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub(crate) fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {small_unit}"),
    };
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

/// `2026-11-23 04:20:11 UTC`.
pub(crate) fn moment(at: WallTime) -> String {
    format!("{} UTC", at.to_string().replace('T', " ").trim_end_matches('Z'))
}

/// `12 s ago`. A moment ahead of this machine's clock is now.
pub(crate) fn ago(at: WallTime, now: WallTime) -> String {
    match now.0.saturating_sub(at.0) {
        0..1000 => "just now".into(),
        age => format!("{} ago", span(age)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_moments_read_well() {
        assert_eq!(span(850), "850 ms");
        assert_eq!(span(59_999), "59 s");
        assert_eq!(span(185_000), "3 min 5 s");
        assert_eq!(span(7_800_000), "2 h 10 min");
        assert_eq!(span(86_400_000), "1 d");
        assert_eq!(moment(WallTime(951_827_696_789)), "2000-02-29 12:34:56 UTC");
        assert_eq!(ago(WallTime(5_000), WallTime(17_000)), "12 s ago");
        assert_eq!(ago(WallTime(50_000), WallTime(17_000)), "just now");
    }
}
