//! Options of resources: one table of names, values and defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::units::{AfterSb0, AfterSb1, AfterSb2, AfterSplitBrain, Authority, OnNoQuorum, Protocol};

/// The options of a resource, all of them set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// When a write is answered.
    pub protocol: Protocol,
    /// Who decides on records.
    pub quorum: Authority,
    /// What happens to I/O that no quorum allows.
    pub on_no_quorum: OnNoQuorum,
    /// What happens by itself after a split brain.
    pub after_split_brain: AfterSplitBrain,
    /// Whether replication links of this resource are encrypted.
    pub peer_tls: bool,
    /// Resync bandwidth cap in bytes per second, 0 for none.
    pub resync_max: u64,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// A read lease.
    pub lease: Duration,
    /// How long a closed connection is retried before the peer is evicted.
    pub reconnect: Duration,
    /// How long a peer may be silent before it counts as gone.
    pub peer_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            protocol: Protocol::C,
            quorum: Authority::Off,
            on_no_quorum: OnNoQuorum::SuspendIo,
            after_split_brain: AfterSplitBrain::default(),
            peer_tls: true,
            resync_max: 0,
            heartbeat: Duration::from_millis(100),
            lease: Duration::from_millis(500),
            reconnect: Duration::from_millis(50),
            peer_timeout: Duration::from_secs(2),
        }
    }
}

/// Options as far as they are set at one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptionSet {
    /// See [`Options::protocol`].
    pub protocol: Option<Protocol>,
    /// See [`Options::quorum`].
    pub quorum: Option<Authority>,
    /// See [`Options::on_no_quorum`].
    pub on_no_quorum: Option<OnNoQuorum>,
    /// See [`AfterSplitBrain::zero`].
    pub after_sb_0pri: Option<AfterSb0>,
    /// See [`AfterSplitBrain::one`].
    pub after_sb_1pri: Option<AfterSb1>,
    /// See [`AfterSplitBrain::two`].
    pub after_sb_2pri: Option<AfterSb2>,
    /// See [`Options::peer_tls`].
    pub peer_tls: Option<bool>,
    /// See [`Options::resync_max`]; bytes per second.
    pub resync_max: Option<u64>,
    /// See [`Options::heartbeat`]; milliseconds.
    pub heartbeat_ms: Option<u64>,
    /// See [`Options::lease`]; milliseconds.
    pub lease_ms: Option<u64>,
    /// See [`Options::reconnect`]; milliseconds.
    pub reconnect_ms: Option<u64>,
    /// See [`Options::peer_timeout`]; milliseconds.
    pub peer_timeout_ms: Option<u64>,
}

/// One option: what a user may say.
#[derive(Debug)]
pub struct OptionSpec {
    /// Its name.
    pub name: &'static str,
    /// The values it takes, as help shows them.
    pub values: &'static str,
    /// What it does.
    pub help: &'static str,
    set: fn(&mut OptionSet, Option<&str>) -> Result<(), String>,
    show: fn(&Options) -> String,
    is_set: fn(&OptionSet) -> bool,
}

/// Every option, in the order in which they are shown.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "protocol",
        values: "A|B|C",
        help: "answer a write when it is on its way to the peers (A), has reached them (B), or is on their disks (C)",
        set: |set, value| assign(&mut set.protocol, value, protocol),
        show: |options| options.protocol.to_string(),
        is_set: |set| set.protocol.is_some(),
    },
    OptionSpec {
        name: "quorum",
        values: "majority|off",
        help: "who decides which replicas are up to date: a majority of the cluster's voters, or each node for itself",
        set: |set, value| assign(&mut set.quorum, value, quorum),
        show: |options| if options.quorum == Authority::Majority { "majority".into() } else { "off".into() },
        is_set: |set| set.quorum.is_some(),
    },
    OptionSpec {
        name: "on-no-quorum",
        values: "suspend-io|io-error",
        help: "what happens to I/O while there is no quorum: it waits, or fails after the peer-timeout and five seconds",
        set: |set, value| assign(&mut set.on_no_quorum, value, on_no_quorum),
        show: |options| options.on_no_quorum.to_string(),
        is_set: |set| set.on_no_quorum.is_some(),
    },
    OptionSpec {
        name: "after-sb-0pri",
        values: "disconnect|discard-younger-primary|discard-older-primary|discard-zero-changes|discard-least-changes",
        help: "whose data is discarded after a split brain when neither side is in use",
        set: |set, value| assign(&mut set.after_sb_0pri, value, str::parse),
        show: |options| options.after_split_brain.zero.to_string(),
        is_set: |set| set.after_sb_0pri.is_some(),
    },
    OptionSpec {
        name: "after-sb-1pri",
        values: "disconnect|consensus|violently-as0p|discard-secondary",
        help: "the same when one side is in use",
        set: |set, value| assign(&mut set.after_sb_1pri, value, str::parse),
        show: |options| options.after_split_brain.one.to_string(),
        is_set: |set| set.after_sb_1pri.is_some(),
    },
    OptionSpec {
        name: "after-sb-2pri",
        values: "disconnect|violently-as0p",
        help: "the same when both sides are in use",
        set: |set, value| assign(&mut set.after_sb_2pri, value, str::parse),
        show: |options| options.after_split_brain.two.to_string(),
        is_set: |set| set.after_sb_2pri.is_some(),
    },
    OptionSpec {
        name: "peer-tls",
        values: "on|off",
        help: "encrypt replication; peers prove who they are either way",
        set: |set, value| assign(&mut set.peer_tls, value, on_off),
        show: |options| if options.peer_tls { "on".into() } else { "off".into() },
        is_set: |set| set.peer_tls.is_some(),
    },
    OptionSpec {
        name: "resync-max",
        values: "BYTES[k|m|g]|0",
        help: "the most that a resync takes per second; 0 leaves it to the feedback of the application's latency",
        set: |set, value| assign(&mut set.resync_max, value, rate),
        show: |options| options.resync_max.to_string(),
        is_set: |set| set.resync_max.is_some(),
    },
    OptionSpec {
        name: "heartbeat",
        values: "10ms..10s",
        help: "the time between two heartbeats",
        set: |set, value| assign(&mut set.heartbeat_ms, value, |text| milliseconds(text, 10, 10_000)),
        show: |options| shown(options.heartbeat),
        is_set: |set| set.heartbeat_ms.is_some(),
    },
    OptionSpec {
        name: "lease",
        values: "50ms..60s",
        help: "how long a replica lets the primary read without asking again; at least three heartbeats",
        set: |set, value| assign(&mut set.lease_ms, value, |text| milliseconds(text, 50, 60_000)),
        show: |options| shown(options.lease),
        is_set: |set| set.lease_ms.is_some(),
    },
    OptionSpec {
        name: "reconnect",
        values: "0ms..60s",
        help: "how long a closed connection is retried before the peer is written off",
        set: |set, value| assign(&mut set.reconnect_ms, value, |text| milliseconds(text, 0, 60_000)),
        show: |options| shown(options.reconnect),
        is_set: |set| set.reconnect_ms.is_some(),
    },
    OptionSpec {
        name: "peer-timeout",
        values: "100ms..600s",
        help: "how long a peer may be silent before it is written off; at least three heartbeats",
        set: |set, value| assign(&mut set.peer_timeout_ms, value, |text| milliseconds(text, 100, 600_000)),
        show: |options| shown(options.peer_timeout),
        is_set: |set| set.peer_timeout_ms.is_some(),
    },
];

impl OptionSpec {
    /// The option's value among `options`, as a user would write it.
    pub fn show(&self, options: &Options) -> String {
        (self.show)(options)
    }

    /// Whether `set` sets it.
    pub fn is_set(&self, set: &OptionSet) -> bool {
        (self.is_set)(set)
    }
}

impl OptionSet {
    /// These options where they are set, those of `base` elsewhere.
    pub fn over(&self, base: &Options) -> Options {
        let time = |own: Option<u64>, base: Duration| own.map_or(base, Duration::from_millis);
        Options {
            protocol: self.protocol.unwrap_or(base.protocol),
            quorum: self.quorum.unwrap_or(base.quorum),
            on_no_quorum: self.on_no_quorum.unwrap_or(base.on_no_quorum),
            after_split_brain: AfterSplitBrain {
                zero: self.after_sb_0pri.unwrap_or(base.after_split_brain.zero),
                one: self.after_sb_1pri.unwrap_or(base.after_split_brain.one),
                two: self.after_sb_2pri.unwrap_or(base.after_split_brain.two),
            },
            peer_tls: self.peer_tls.unwrap_or(base.peer_tls),
            resync_max: self.resync_max.unwrap_or(base.resync_max),
            heartbeat: time(self.heartbeat_ms, base.heartbeat),
            lease: time(self.lease_ms, base.lease),
            reconnect: time(self.reconnect_ms, base.reconnect),
            peer_timeout: time(self.peer_timeout_ms, base.peer_timeout),
        }
    }

    /// This set with `changes` made: `None` unsets. Refused as a whole when one is wrong.
    pub(super) fn with(&self, changes: &BTreeMap<String, Option<String>>) -> Result<Self, Refusal> {
        let mut changed = self.clone();
        for (name, value) in changes {
            let Some(option) = OPTIONS.iter().find(|option| option.name == name) else {
                let known: Vec<&str> = OPTIONS.iter().map(|option| option.name).collect();
                return Err(Refusal::BadOption(format!("there is no option '{name}', only {}", known.join(", "))));
            };
            (option.set)(&mut changed, value.as_deref()).map_err(|why| {
                Refusal::BadOption(format!("{name} = '{}' is wrong: {why}", value.as_deref().unwrap_or_default()))
            })?;
        }
        Ok(changed)
    }
}

impl Options {
    /// Whether the options go together.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        for (name, time) in [("lease", self.lease), ("peer-timeout", self.peer_timeout)] {
            if time < self.heartbeat * 3 {
                let (time, heartbeat) = (shown(time), shown(self.heartbeat));
                return Err(Refusal::BadOption(format!("{name} = {time} is under three heartbeats of {heartbeat}")));
            }
        }
        Ok(())
    }
}

fn assign<T>(place: &mut Option<T>, value: Option<&str>, parse: impl Fn(&str) -> Result<T, String>) -> Result<(), String> {
    *place = value.map(parse).transpose()?;
    Ok(())
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "A" | "a" => Ok(Protocol::A),
        "B" | "b" => Ok(Protocol::B),
        "C" | "c" => Ok(Protocol::C),
        _ => Err("give A, B or C".into()),
    }
}

fn quorum(text: &str) -> Result<Authority, String> {
    match text {
        "majority" => Ok(Authority::Majority),
        "off" => Ok(Authority::Off),
        _ => Err("give majority or off".into()),
    }
}

fn on_no_quorum(text: &str) -> Result<OnNoQuorum, String> {
    match text {
        "suspend-io" => Ok(OnNoQuorum::SuspendIo),
        "io-error" => Ok(OnNoQuorum::IoError),
        _ => Err("give suspend-io or io-error".into()),
    }
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" | "yes" | "true" => Ok(true),
        "off" | "no" | "false" => Ok(false),
        _ => Err("give on or off".into()),
    }
}

/// The slowest rate that can be set, in bytes per second.
const RATE_MIN: u64 = 64 << 10;

fn rate(text: &str) -> Result<u64, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor: u64 = match unit.to_ascii_lowercase().trim_end_matches("ib") {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return Err("give bytes per second, or with a unit of k, m or g".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "give a number of bytes per second".to_owned())?;
    let rate = number.checked_mul(factor).ok_or_else(|| "that is more than can be counted".to_owned())?;
    // A resync that would take years is a slip of the finger.
    if (1..RATE_MIN).contains(&rate) { Err("give at least 64k, or 0 for no limit".into()) } else { Ok(rate) }
}

fn milliseconds(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = digits.parse().map_err(|_| "give a time such as 500ms or 2s".to_owned())?;
    let milliseconds = match unit {
        "" | "ms" => number,
        "s" => number.saturating_mul(1000),
        _ => return Err("give a time in ms or s".into()),
    };
    if (min..=max).contains(&milliseconds) { Ok(milliseconds) } else { Err(format!("give a time from {min} ms to {max} ms")) }
}

fn shown(time: Duration) -> String {
    let milliseconds = time.as_millis();
    if milliseconds >= 1000 && milliseconds.is_multiple_of(1000) {
        format!("{}s", milliseconds / 1000)
    } else {
        format!("{milliseconds}ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(list: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
        list.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
    }

    #[test]
    fn what_an_option_shows_can_be_set_again() {
        let mut set = OptionSet::default();
        let other = [
            ("protocol", "A"),
            ("quorum", "majority"),
            ("on-no-quorum", "io-error"),
            ("after-sb-0pri", "discard-zero-changes"),
            ("after-sb-1pri", "discard-secondary"),
            ("after-sb-2pri", "violently-as0p"),
            ("peer-tls", "off"),
            ("resync-max", "10m"),
            ("heartbeat", "20ms"),
            ("lease", "1s"),
            ("reconnect", "0ms"),
            ("peer-timeout", "5s"),
        ];
        for (name, value) in other {
            set = set.with(&changes(&[(name, Some(value))])).unwrap();
        }
        let options = set.over(&Options::default());
        assert_eq!(OPTIONS.len(), other.len());
        for option in OPTIONS {
            assert!(option.is_set(&set), "{} was not set", option.name);
            assert_ne!(option.show(&options), option.show(&Options::default()), "{} was not changed", option.name);
            let again = set.with(&changes(&[(option.name, Some(&option.show(&options)))])).unwrap();
            assert_eq!(again, set, "{} is shown as something else than it is", option.name);
            let unset = set.with(&changes(&[(option.name, None)])).unwrap();
            assert!(!option.is_set(&unset), "{} cannot be unset", option.name);
        }
    }

    #[test]
    fn a_wrong_option_is_named() {
        for (name, value) in [
            ("protokoll", "A"),
            ("protocol", "D"),
            ("on-no-quorum", "eio"),
            ("after-sb-0pri", "discard-node-alpha"),
            ("after-sb-1pri", "call-pri-lost-after-sb"),
            ("after-sb-2pri", "discard-secondary"),
            ("resync-max", "-1"),
            ("resync-max", "99999999999g"),
            ("lease", "1h"),
        ] {
            let refusal = OptionSet::default().with(&changes(&[(name, Some(value))])).unwrap_err();
            assert!(refusal.to_string().contains(name), "{refusal}");
        }
    }

    #[test]
    fn a_lease_must_outlive_lost_heartbeats() {
        let set = OptionSet::default().with(&changes(&[("heartbeat", Some("1s"))])).unwrap();
        assert!(set.over(&Options::default()).check().is_err());
    }
}
