//! Lengths of time as people write them, and moments as they read them.

use std::str::FromStr;

/// A length of time in seconds: `90s`, `30m`, `24h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub u64);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no length of time: write a number and a unit, as in 90s, 30m, 24h or 7d");
        let unit = text.chars().next_back().ok_or_else(wrong)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return Err(wrong()),
        };
        let digits = &text[..text.len() - 1];
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        number.checked_mul(seconds).map(Self).ok_or_else(wrong)
    }
}

/// A length of time in seconds as [`Span`] reads it, in the largest unit that it is a multiple of.
pub(super) fn written(seconds: u64) -> String {
    let units = [(86400, 'd'), (3600, 'h'), (60, 'm')];
    let unit = units.into_iter().find(|(length, _)| seconds >= *length && seconds.is_multiple_of(*length));
    unit.map_or_else(|| format!("{seconds}s"), |(length, unit)| format!("{}{unit}", seconds / length))
}

/// A moment as people read it, in universal time.
pub(super) fn moment(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
    moment.map_or_else(|| seconds.to_string(), |moment| moment.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit_and_nothing_else() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604_800), ("0s", 0)] {
            assert_eq!(text.parse(), Ok(Span(seconds)));
        }
        for wrong in
            ["", "s", "5", "-1s", "+1s", "1.5h", "1 h", "1w", "1hh", "ä", "99999999999999999999d", "9999999999999999999d"]
        {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }
}
