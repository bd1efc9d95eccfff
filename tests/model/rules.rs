//! The rules of `src/docs/durability.md`, each of which can be left out.

/// Where a mutant is searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A cluster with `quorum=majority`.
    Two,
    TwoQuick,
    TwoOneAway,
    TwoStops,
    ThreeOneAway,
    /// Two nodes that decide alone.
    Alone,
}

/// A rule that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[rustfmt::skip]
pub enum Mutant {
    AnswerWhenWrittenHere, FlushMembersOnly, FlushHereOnly,
    PrimaryCold, ReplicaCold,
    ReadInFlight,
    CoolUnflushed, CoolWithoutBits, CoolUnstored, CoolWithoutWindows,
    NotSentAgain,
    ObeyAnybody, GrantAnybody,
    NoLease, NoLeaseOfTargets,
    NoLeaseWait, CloseEndsLease, RestartForgetsLease,
    ReportUndrained, PromoteUndrained, PromoteDrainedOnce,
    CompleteBeforeEvicted, BitsAtRequest, EvictWithoutWindow,
    ProposedNotAwaited, UnknownIsNo,
    AnyLifePromoted, AnyLifeCounts, OtherLifeAnswers, LastWithoutTheOthers,
    AdmitUnflushed, AdmitEmptyHanded, AdmitDirty, TargetNotAwaited, CoolDuringAdmission,
    ReportsIgnored, NewLifeReportsNothing, TargetForgets,
    PromoteAnybody, ReignRefused,
    OwnMemoryIgnored, SurvivorsIgnored,
    ServeUnequal, FlushUnequal,
    ForgetWritten,
    HotIsCleanAtStart,
    WindowDropped, StoredWithoutWindow,
    ClearWhenSent, ChunksCross,
    OldReignGoesOn, ForkByNumber, NeverLatched, StopStaysUpToDate, AdmittedKnowsFirst,
}

/// A mutant, the rule that it breaks, how, and where it is found.
pub struct Case {
    pub mutant: Mutant,
    pub rule: &'static str,
    pub what: &'static str,
    pub place: Place,
    /// A difference that nobody knows of is enough. Else something has to be lost, stale or different that was promised.
    pub strict: bool,
    /// Why nothing is found.
    pub redundant: Option<&'static str>,
}

const fn case(mutant: Mutant, rule: &'static str, place: Place, what: &'static str) -> Case {
    Case { mutant, rule, what, place, strict: false, redundant: None }
}

/// Found by a difference that nobody knows of: what is lost by it takes more than fits into the configuration, or much longer.
const fn hidden(mutant: Mutant, rule: &'static str, place: Place, what: &'static str) -> Case {
    Case { strict: true, ..case(mutant, rule, place, what) }
}

/// Nothing is found, for this reason.
const fn needless(case: Case, why: &'static str) -> Case {
    Case { redundant: Some(why), ..case }
}

pub const CASES: &[Case] = &[
    case(Mutant::AnswerWhenWrittenHere, "W1", Place::Two, "a write is answered when it is on the primary's disk"),
    case(
        Mutant::FlushMembersOnly,
        "W1",
        Place::TwoOneAway,
        "a flush asks only the members, not a target that is about to be one",
    ),
    case(Mutant::FlushHereOnly, "W1", Place::Two, "a flush is answered when the primary has flushed"),
    case(Mutant::PrimaryCold, "W2", Place::Two, "the primary writes cold extents"),
    hidden(Mutant::ReplicaCold, "W2", Place::ThreeOneAway, "a replica writes cold extents"),
    case(Mutant::ReadInFlight, "W4", Place::Two, "a read does not wait for a write in flight"),
    case(Mutant::CoolUnflushed, "W5", Place::TwoQuick, "an extent is cooled before what is in it is durable"),
    case(Mutant::CoolWithoutBits, "W5", Place::ThreeOneAway, "the message that cools carries no bits"),
    case(Mutant::CoolUnstored, "W5", Place::TwoOneAway, "the primary cools before its bits are on disk"),
    hidden(Mutant::CoolWithoutWindows, "W5", Place::ThreeOneAway, "the message that cools carries bits without windows"),
    case(Mutant::NotSentAgain, "W6", Place::Two, "after a short break nothing is sent again"),
    case(Mutant::ObeyAnybody, "F1", Place::Two, "a replica takes an older reign's data"),
    case(Mutant::GrantAnybody, "F1", Place::Two, "a replica answers an older reign's flush, and so grants it a lease"),
    case(Mutant::NoLease, "F2", Place::Two, "reads need no lease"),
    case(Mutant::NoLeaseOfTargets, "F2", Place::TwoOneAway, "reads need the members' leases only, not a target's"),
    case(Mutant::NoLeaseWait, "F3", Place::Two, "a new primary does not wait for the old one's lease"),
    case(Mutant::CloseEndsLease, "F3", Place::Two, "a connection that closes ends what was granted on it"),
    case(Mutant::RestartForgetsLease, "F3", Place::TwoStops, "a replica that restarted forgets what it granted"),
    hidden(Mutant::ReportUndrained, "F4", Place::Two, "a replica reports before its disk is idle"),
    case(Mutant::PromoteUndrained, "F4", Place::Two, "a replica is promoted before its disk is idle"),
    case(Mutant::PromoteDrainedOnce, "F4", Place::Two, "the disk is idle when the reign is asked for, not when it begins"),
    case(Mutant::CompleteBeforeEvicted, "M1", Place::Two, "nobody waits for a member that is away"),
    case(Mutant::BitsAtRequest, "M1", Place::TwoQuick, "bits are set when the eviction is asked for"),
    needless(
        hidden(Mutant::EvictWithoutWindow, "M1", Place::TwoQuick, "an evicted replica's window is forgotten"),
        "a replica has it hot before it writes, and reports it: rules W2, M5",
    ),
    case(Mutant::ProposedNotAwaited, "M2", Place::TwoOneAway, "whom a proposal adds is not waited for"),
    case(Mutant::UnknownIsNo, "M2", Place::TwoOneAway, "a lost answer is taken for a refusal"),
    case(Mutant::AnyLifePromoted, "M3", Place::Two, "a member is promoted in any life"),
    case(Mutant::AnyLifeCounts, "M3", Place::Two, "a member counts in any life"),
    case(Mutant::OtherLifeAnswers, "M3", Place::TwoOneAway, "whom a proposal names in one life answers in another"),
    case(Mutant::LastWithoutTheOthers, "M3", Place::Two, "the last of all does not wait for the other members"),
    case(Mutant::AdmitDirty, "M4", Place::TwoOneAway, "a target is admitted while blocks are dirty"),
    case(Mutant::AdmitUnflushed, "M4", Place::TwoOneAway, "a target is admitted without the flush"),
    hidden(Mutant::AdmitEmptyHanded, "M4", Place::ThreeOneAway, "a target gets neither hot extents nor bits"),
    case(Mutant::TargetNotAwaited, "M4", Place::TwoOneAway, "a target is not in the ack set"),
    needless(
        hidden(Mutant::CoolDuringAdmission, "M4", Place::ThreeOneAway, "extents are cooled between the hand-over and the record"),
        "it takes a primary that steps down, and there is none here",
    ),
    case(Mutant::ReportsIgnored, "M5", Place::Two, "what a replica reports is not dirty for it"),
    case(Mutant::NewLifeReportsNothing, "M5", Place::Two, "a new life does not report hot extents"),
    case(Mutant::TargetForgets, "M5", Place::TwoQuick, "a target forgets its report before its admission"),
    case(Mutant::PromoteAnybody, "P1", Place::TwoOneAway, "a replica is promoted whether it is in sync or not"),
    case(Mutant::ReignRefused, "P1", Place::Two, "a reign begins although the authority has refused it"),
    case(Mutant::OwnMemoryIgnored, "P2", Place::Two, "a new primary does not make its own last writes equal"),
    case(Mutant::SurvivorsIgnored, "P2", Place::Two, "a new primary ignores what the survivors remember"),
    case(Mutant::ServeUnequal, "P3", Place::TwoQuick, "blocks that are not equal yet are served"),
    case(Mutant::FlushUnequal, "P3", Place::TwoQuick, "a flush does not wait for blocks that are not equal yet"),
    case(Mutant::ForgetWritten, "P4", Place::Two, "what all have written is forgotten, durable or not"),
    case(Mutant::HotIsCleanAtStart, "P5", Place::ThreeOneAway, "hot extents are not dirty at a start"),
    case(
        Mutant::WindowDropped,
        "R1",
        Place::TwoOneAway,
        "what a target was given and has not made durable is forgotten with its session",
    ),
    case(Mutant::StoredWithoutWindow, "R1", Place::TwoOneAway, "bits are stored without the window"),
    case(Mutant::ClearWhenSent, "R2", Place::TwoOneAway, "a bit is cleared when its block is sent"),
    case(Mutant::ChunksCross, "R2", Place::TwoOneAway, "a write overtakes a block that was read for a resync"),
    case(Mutant::AnyLifeCounts, "M3", Place::Alone, "a node that crashed continues the life before"),
    case(Mutant::OldReignGoesOn, "Q1", Place::Alone, "a node goes on under the record that it finds"),
    case(Mutant::ForkByNumber, "Q2", Place::Alone, "the later side of a fork is taken for the newer"),
    case(Mutant::NeverLatched, "Q3", Place::Alone, "nobody notes that writing has begun"),
    case(Mutant::StopStaysUpToDate, "Q7", Place::Alone, "a replica that stops while another goes on stays up to date"),
    case(Mutant::AdmittedKnowsFirst, "Q8", Place::Alone, "the other replica stores its admission first"),
];
