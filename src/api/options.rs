//! Options of resources: set for the cluster, overridden for a resource.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::units::{AfterSb0, AfterSb1, AfterSb2, Name, Protocol};

/// Who decides about a resource's record, as an operator chooses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quorum {
    /// `majority` when there are three or more voters as the resource is made, `off` when there are fewer.
    #[default]
    Auto,
    /// A majority of the cluster's voters: no split brain; without a majority, I/O waits.
    Majority,
    /// Each node for itself: two nodes go on alone, and a split brain is possible and detected.
    Off,
}

/// What happens to I/O that no quorum allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnNoQuorum {
    /// It waits.
    #[default]
    SuspendIo,
    /// It fails with an I/O error.
    IoError,
}

/// Options as they were set at one level: absent means "as the level above".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OptionValues {
    /// When a write is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Who decides about the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<Quorum>,
    /// What happens to I/O that no quorum allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_no_quorum: Option<OnNoQuorum>,
    /// Whose data is discarded after a split brain when neither side is in use.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "after-sb-0pri")]
    pub after_sb_0pri: Option<AfterSb0>,
    /// The same when one side is in use.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "after-sb-1pri")]
    pub after_sb_1pri: Option<AfterSb1>,
    /// The same when both sides are in use.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "after-sb-2pri")]
    pub after_sb_2pri: Option<AfterSb2>,
    /// Whether replication is encrypted and authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_tls: Option<bool>,
    /// The most that a resync takes, in bytes per second; 0 for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync_max: Option<u64>,
    /// Milliseconds that a silent peer may be silent before it counts as gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_timeout: Option<u64>,
}

impl OptionValues {
    /// These where they are set, `above` where they are not.
    #[must_use]
    pub fn over(self, above: Self) -> Self {
        Self {
            protocol: self.protocol.or(above.protocol),
            quorum: self.quorum.or(above.quorum),
            on_no_quorum: self.on_no_quorum.or(above.on_no_quorum),
            after_sb_0pri: self.after_sb_0pri.or(above.after_sb_0pri),
            after_sb_1pri: self.after_sb_1pri.or(above.after_sb_1pri),
            after_sb_2pri: self.after_sb_2pri.or(above.after_sb_2pri),
            peer_tls: self.peer_tls.or(above.peer_tls),
            resync_max: self.resync_max.or(above.resync_max),
            peer_timeout: self.peer_timeout.or(above.peer_timeout),
        }
    }

    /// These without what `names` names.
    #[must_use]
    pub fn without(mut self, names: &[OptionName]) -> Self {
        for name in names {
            match name {
                OptionName::Protocol => self.protocol = None,
                OptionName::Quorum => self.quorum = None,
                OptionName::OnNoQuorum => self.on_no_quorum = None,
                OptionName::AfterSb0Pri => self.after_sb_0pri = None,
                OptionName::AfterSb1Pri => self.after_sb_1pri = None,
                OptionName::AfterSb2Pri => self.after_sb_2pri = None,
                OptionName::PeerTls => self.peer_tls = None,
                OptionName::ResyncMax => self.resync_max = None,
                OptionName::PeerTimeout => self.peer_timeout = None,
            }
        }
        self
    }

    /// With the defaults for what is not set.
    pub fn effective(self) -> EffectiveOptions {
        let default = EffectiveOptions::default();
        EffectiveOptions {
            protocol: self.protocol.unwrap_or(default.protocol),
            quorum: self.quorum.unwrap_or(default.quorum),
            on_no_quorum: self.on_no_quorum.unwrap_or(default.on_no_quorum),
            after_sb_0pri: self.after_sb_0pri.unwrap_or(default.after_sb_0pri),
            after_sb_1pri: self.after_sb_1pri.unwrap_or(default.after_sb_1pri),
            after_sb_2pri: self.after_sb_2pri.unwrap_or(default.after_sb_2pri),
            peer_tls: self.peer_tls.unwrap_or(default.peer_tls),
            resync_max: self.resync_max.unwrap_or(default.resync_max),
            peer_timeout: self.peer_timeout.unwrap_or(default.peer_timeout),
        }
    }
}

/// Every option with the value that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EffectiveOptions {
    /// When a write is answered.
    pub protocol: Protocol,
    /// Who decides about the record.
    pub quorum: Quorum,
    /// What happens to I/O that no quorum allows.
    pub on_no_quorum: OnNoQuorum,
    /// Whose data is discarded after a split brain when neither side is in use.
    #[serde(rename = "after-sb-0pri")]
    pub after_sb_0pri: AfterSb0,
    /// The same when one side is in use.
    #[serde(rename = "after-sb-1pri")]
    pub after_sb_1pri: AfterSb1,
    /// The same when both sides are in use.
    #[serde(rename = "after-sb-2pri")]
    pub after_sb_2pri: AfterSb2,
    /// Whether replication is encrypted and authenticated.
    pub peer_tls: bool,
    /// The most that a resync takes, in bytes per second; 0 for no limit.
    pub resync_max: u64,
    /// Milliseconds that a silent peer may be silent before it counts as gone.
    pub peer_timeout: u64,
}

impl Default for EffectiveOptions {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            quorum: Quorum::default(),
            on_no_quorum: OnNoQuorum::default(),
            after_sb_0pri: AfterSb0::default(),
            after_sb_1pri: AfterSb1::default(),
            after_sb_2pri: AfterSb2::default(),
            peer_tls: true,
            resync_max: 0,
            peer_timeout: 2000,
        }
    }
}

/// Names an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptionName {
    /// [`OptionValues::protocol`].
    Protocol,
    /// [`OptionValues::quorum`].
    Quorum,
    /// [`OptionValues::on_no_quorum`].
    OnNoQuorum,
    /// [`OptionValues::after_sb_0pri`].
    #[serde(rename = "after-sb-0pri")]
    AfterSb0Pri,
    /// [`OptionValues::after_sb_1pri`].
    #[serde(rename = "after-sb-1pri")]
    AfterSb1Pri,
    /// [`OptionValues::after_sb_2pri`].
    #[serde(rename = "after-sb-2pri")]
    AfterSb2Pri,
    /// [`OptionValues::peer_tls`].
    PeerTls,
    /// [`OptionValues::resync_max`].
    ResyncMax,
    /// [`OptionValues::peer_timeout`].
    PeerTimeout,
}

impl OptionName {
    /// Every option, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::Protocol,
        Self::Quorum,
        Self::OnNoQuorum,
        Self::AfterSb0Pri,
        Self::AfterSb1Pri,
        Self::AfterSb2Pri,
        Self::PeerTls,
        Self::ResyncMax,
        Self::PeerTimeout,
    ];

    /// The name as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Quorum => "quorum",
            Self::OnNoQuorum => "on-no-quorum",
            Self::AfterSb0Pri => "after-sb-0pri",
            Self::AfterSb1Pri => "after-sb-1pri",
            Self::AfterSb2Pri => "after-sb-2pri",
            Self::PeerTls => "peer-tls",
            Self::ResyncMax => "resync-max",
            Self::PeerTimeout => "peer-timeout",
        }
    }
}

impl FromStr for OptionName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|option| option.as_str() == name)
            .ok_or_else(|| format!("there is no option '{name}'; options are {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

impl fmt::Display for OptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Changes options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetOptions {
    /// Of this resource; of the whole cluster when absent.
    #[serde(default)]
    pub resource: Option<Name>,
    /// What to set.
    #[serde(default)]
    pub set: OptionValues,
    /// What to take back, so that the level above counts again.
    #[serde(default)]
    pub unset: Vec<OptionName>,
}

/// Asks for options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListOptions {
    /// Of this resource; of the whole cluster when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Name>,
}

/// Options, level by level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Set for the cluster.
    pub common: OptionValues,
    /// Set for the resource; empty when the cluster's were asked for.
    pub resource: OptionValues,
    /// What counts.
    pub effective: EffectiveOptions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resources_option_counts_before_the_clusters_and_that_before_the_default() {
        let common = OptionValues { protocol: Some(Protocol::A), peer_tls: Some(false), ..OptionValues::default() };
        let resource = OptionValues { protocol: Some(Protocol::B), ..OptionValues::default() };
        let effective = resource.over(common).effective();
        assert_eq!((effective.protocol, effective.peer_tls, effective.peer_timeout), (Protocol::B, false, 2000));
    }

    #[test]
    fn unsetting_brings_the_level_above_back() {
        let set = OptionValues { quorum: Some(Quorum::Off), resync_max: Some(1), ..OptionValues::default() };
        assert_eq!(set.without(&[OptionName::Quorum]), OptionValues { resync_max: Some(1), ..OptionValues::default() });
        assert_eq!(set.without(&OptionName::ALL), OptionValues::default());
    }

    #[test]
    fn every_option_has_its_json_name() {
        for option in OptionName::ALL {
            assert_eq!(serde_json::to_value(option).unwrap(), option.as_str());
            assert_eq!(option.as_str().parse(), Ok(option));
        }
        let all = serde_json::to_value(EffectiveOptions::default()).unwrap();
        assert_eq!(all.as_object().unwrap().len(), OptionName::ALL.len());
        assert!(OptionName::ALL.iter().all(|option| all.get(option.as_str()).is_some()));
    }
}
