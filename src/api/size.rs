//! Sizes as people write and read them.

use std::str::FromStr;

/// A number of bytes, as `add-volume` takes it: `10GB`, `1.5GiB`, `512m`; a number alone counts GiB, as drbdmanage's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// A number of bytes where a number alone counts bytes: `100MiB`, `64k`, `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match parse(text, 1 << 30)? {
            0 => Err("a size must be greater than 0".to_owned()),
            bytes => Ok(Self(bytes)),
        }
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, 1).map(Self)
    }
}

/// A number of bytes where a number alone counts MiB, as drbdmanage's Docker plugin has it: `100`, `10GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DockerSize(pub u64);

impl FromStr for DockerSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match parse(text, 1 << 20)? {
            0 => Err("a size must be greater than 0".to_owned()),
            bytes => Ok(Self(bytes)),
        }
    }
}

/// A decimal number with a unit. Digits behind the point that make no whole byte are rounded up: a volume is never smaller than
/// was asked for.
fn parse(text: &str, unitless: u64) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no size: write a number and a unit, as in 10GiB, 500MB or 1.5t");
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = if unit.trim().is_empty() { unitless } else { unit_of(unit.trim()).ok_or_else(wrong)? };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| -> Option<u128> { if part.is_empty() { Some(0) } else { part.parse().ok() } };
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 9 {
        return Err(wrong());
    }
    let too_large = || format!("'{text}' is larger than any volume can be");
    let scale = 10_u128.pow(u32::try_from(fraction.len()).expect("at most 9 digits"));
    let bytes = digits(whole)
        .and_then(|whole| whole.checked_mul(scale))
        .and_then(|whole| whole.checked_add(digits(fraction)?))
        .and_then(|number| number.checked_mul(u128::from(unit)))
        .ok_or_else(too_large)?;
    let bytes = u64::try_from(bytes.div_ceil(scale)).map_err(|_| too_large())?;
    // A volume's last byte must have an offset that a file can have.
    if i64::try_from(bytes).is_ok() { Ok(bytes) } else { Err(too_large()) }
}

/// `k`, `KiB` and their greater brothers count in 1024s, `kB` and its in 1000s; upper and lower case are the same.
fn unit_of(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    if unit == "b" {
        return Some(1);
    }
    let power = 1 + u32::try_from("kmgtp".find(unit.chars().next()?)?).ok()?;
    match &unit[1..] {
        "" | "ib" => Some(1024_u64.pow(power)),
        "b" => Some(1000_u64.pow(power)),
        _ => None,
    }
}

/// A size in whole KiB, rounded up, as the machine readable lists have it.
pub const fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_drbdmanage() {
        let size = |text: &str| text.parse::<Size>().map(|s| s.0);
        assert_eq!(size("1"), Ok(1 << 30));
        assert_eq!(size("10GB"), Ok(10_000_000_000));
        assert_eq!(size("10gb"), Ok(10_000_000_000));
        assert_eq!(size("10GiB"), Ok(10 << 30));
        assert_eq!(size("512m"), Ok(512 << 20));
        assert_eq!(size("4 KiB"), Ok(4096));
        assert_eq!(size("7b"), Ok(7));
        assert_eq!(size("2p"), Ok(2 << 50));
        assert_eq!("100".parse::<DockerSize>().map(|s| s.0), Ok(100 << 20));
        assert_eq!("1g".parse::<DockerSize>().map(|s| s.0), Ok(1 << 30));
    }

    #[test]
    fn fractions_are_exact_and_rounded_up() {
        let size = |text: &str| text.parse::<Size>().map(|s| s.0);
        assert_eq!(size("1.5"), Ok(3 << 29));
        assert_eq!(size("0.1GB"), Ok(100_000_000));
        assert_eq!(size(".5k"), Ok(512));
        assert_eq!(size("0.0001k"), Ok(1));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "x", "G", "1..5G", "-1G", "1q", "1GiBB", "1e3", "0", "0.0G", ".", "9000p", "99999999999999999999999999999p"]
        {
            assert!(text.parse::<Size>().is_err(), "{text:?} was taken for a size");
        }
        assert_eq!("0".parse(), Ok(Bytes(0)));
        assert_eq!("100".parse(), Ok(Bytes(100)));
    }
}
