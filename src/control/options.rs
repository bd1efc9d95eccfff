//! Options in the API's words and in the model's.

use std::collections::BTreeMap;

use crate::api::{EffectiveOptions, OnNoQuorum, OptionName, OptionValues, Quorum};
use crate::cluster::{OptionSet, Options};
use crate::units::{self, Authority};

/// What a user sets, as the model takes it.
pub fn changes(set: &OptionValues, unset: &[OptionName]) -> BTreeMap<String, Option<String>> {
    let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
    let mut changes: BTreeMap<String, Option<String>> = unset.iter().map(|name| (name.to_string(), None)).collect();
    let mut put = |name: OptionName, value: Option<String>| {
        if let Some(value) = value {
            changes.insert(name.to_string(), Some(value));
        }
    };
    put(OptionName::Protocol, set.protocol.map(|protocol| protocol.to_string()));
    put(OptionName::OnNoQuorum, set.on_no_quorum.map(|what| model_no_quorum(what).to_string()));
    put(OptionName::AfterSb0Pri, set.after_sb_0pri.map(|policy| policy.to_string()));
    put(OptionName::AfterSb1Pri, set.after_sb_1pri.map(|policy| policy.to_string()));
    put(OptionName::AfterSb2Pri, set.after_sb_2pri.map(|policy| policy.to_string()));
    put(OptionName::PeerTls, set.peer_tls.map(on_off));
    put(OptionName::ResyncMax, set.resync_max.map(|bytes| bytes.to_string()));
    put(OptionName::PeerTimeout, set.peer_timeout.map(|milliseconds| milliseconds.to_string()));
    match set.quorum {
        Some(Quorum::Majority) => put(OptionName::Quorum, Some("majority".into())),
        Some(Quorum::Off) => put(OptionName::Quorum, Some("off".into())),
        // What the model does where nothing is set.
        Some(Quorum::Auto) => drop(changes.insert(OptionName::Quorum.to_string(), None)),
        None => {}
    }
    changes
}

/// What is set at one place.
pub fn values(set: &OptionSet) -> OptionValues {
    OptionValues {
        protocol: set.protocol,
        quorum: set.quorum.map(quorum),
        on_no_quorum: set.on_no_quorum.map(no_quorum),
        after_sb_0pri: set.after_sb_0pri,
        after_sb_1pri: set.after_sb_1pri,
        after_sb_2pri: set.after_sb_2pri,
        peer_tls: set.peer_tls,
        resync_max: set.resync_max,
        peer_timeout: set.peer_timeout_ms,
    }
}

/// What counts.
pub fn effective(options: &Options) -> EffectiveOptions {
    EffectiveOptions {
        protocol: options.protocol,
        quorum: quorum(options.quorum),
        on_no_quorum: no_quorum(options.on_no_quorum),
        after_sb_0pri: options.after_split_brain.zero,
        after_sb_1pri: options.after_split_brain.one,
        after_sb_2pri: options.after_split_brain.two,
        peer_tls: options.peer_tls,
        resync_max: options.resync_max,
        peer_timeout: u64::try_from(options.peer_timeout.as_millis()).unwrap_or(u64::MAX),
    }
}

fn quorum(authority: Authority) -> Quorum {
    match authority {
        Authority::Majority => Quorum::Majority,
        Authority::Off => Quorum::Off,
    }
}

fn no_quorum(what: units::OnNoQuorum) -> OnNoQuorum {
    match what {
        units::OnNoQuorum::SuspendIo => OnNoQuorum::SuspendIo,
        units::OnNoQuorum::IoError => OnNoQuorum::IoError,
    }
}

fn model_no_quorum(what: OnNoQuorum) -> units::OnNoQuorum {
    match what {
        OnNoQuorum::SuspendIo => units::OnNoQuorum::SuspendIo,
        OnNoQuorum::IoError => units::OnNoQuorum::IoError,
    }
}
