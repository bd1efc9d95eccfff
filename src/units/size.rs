//! Sizes for people, in every message and table.

/// A size in the largest unit that leaves at least 1, as `500 GiB` or `9.31 GiB`; what is beyond the second digit is left out. For what
/// there is.
pub fn human(bytes: u64) -> String {
    in_hundredths(bytes, |value, unit| value / unit)
}

/// As [`human`], rounded up: for what is wanted. What does not fit never looks as if it did: of two sizes the greater one, rounded up,
/// reads as more than the smaller one, rounded down.
pub fn human_up(bytes: u64) -> String {
    in_hundredths(bytes, u128::div_ceil)
}

fn in_hundredths(bytes: u64, divided: fn(u128, u128) -> u128) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(power) = bytes.checked_ilog2().map(|bits| bits / 10).filter(|power| *power > 0) else {
        return format!("{bytes} B");
    };
    let hundredths = divided(u128::from(bytes) * 100, 1 << (10 * power));
    let unit = UNITS[power as usize - 1];
    match hundredths % 100 {
        0 => format!("{} {unit}", hundredths / 100),
        rest => format!("{}.{rest:02} {unit}", hundredths / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_three_digits_or_so() {
        let shown = [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (500 << 30, "500 GiB"), (10_000_000_000, "9.31 GiB")];
        for (bytes, text) in shown {
            assert_eq!(human(bytes), text);
        }
        assert_eq!(human(u64::MAX), "15.99 EiB");
        assert_eq!(human_up(u64::MAX), "16 EiB");
    }

    #[test]
    fn what_does_not_fit_reads_as_more_than_the_room() {
        for room in [4096_u64, 1 << 20, 10 << 30, (10 << 30) + 4096, (1 << 40) - 4096, 5 << 50] {
            assert_ne!(human_up(room + 4096), human(room), "{room}");
        }
        assert_eq!((human_up((10 << 30) + 4096), human(10 << 30)), ("10.01 GiB".to_owned(), "10 GiB".to_owned()));
    }
}
