//! Deliberate bugs, one for each rule that has a story: what the simulator must find.
//!
//! A test that has never failed proves nothing. Where a rule is kept, the code asks whether this very rule is to be broken today; without
//! the feature `mutants`, which nobody ships, [`mutated`] is constantly false and the compiler removes the question. With it the
//! simulator chooses one bug, runs the same seeds that pass otherwise, and has to fail.

/// A rule of [the list](super) that is broken on purpose. The first word of a description is the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    /// W1: a write is answered when it is on the primary's disk.
    AckOwnWrite,
    /// W1: a flush asks only the members, not a target that is about to be one.
    FlushMembersOnly,
    /// W1: a flush does not wait for the primary's own disk.
    FlushSkipsOwnDisk,
    /// W1: the replicas are not told that a write has to be durable.
    FuaIsWritten,
    /// W1: with protocol A or B a flush overtakes writes that were answered early.
    FlushOvertakes,
    /// W1: with protocol A or B a flush that came late shares the round of those before it.
    FlushJoinsLate,
    /// W2: the primary sends and writes before the extents are hot on disk.
    SendCold,
    /// W2: a replica writes before the extents are hot on its disk.
    ApplyCold,
    /// W3: a write of the activity map that failed counts as done.
    LogFailureIgnored,
    /// W3: a write that failed counts as done, at the primary.
    OwnWriteFailureIgnored,
    /// W3: a write that failed counts as done, at a replica.
    WriteFailureIgnored,
    /// W3: a flush that failed counts as done, at a replica.
    FlushFailureIgnored,
    /// W3: a replica whose metadata failed says nevertheless that what it was to store is stored.
    AbandonStored,
    /// W3: a primary whose metadata failed forgets what waited for it.
    AbandonOwn,
    /// W3: a primary whose disk has failed answers while the record still counts on it.
    OwnWordCounts,
    /// W3: a primary whose disk has failed does not leave the in-sync set.
    KeepSelf,
    /// W3: a remote read asks the same peer again, whatever it said.
    AskTheSameAgain,
    /// W4: overlapping writes are in flight at once.
    WritesOverlap,
    /// W4: a read does not wait for a write in flight.
    ReadsOvertake,
    /// W4: a resync that is aborted lets other writes to its blocks begin while what it has sent is still to land.
    AbortedChunksLeave,
    /// W5: extents are cooled before what is in them is durable everywhere.
    CoolUnflushed,
    /// W5: the message that cools carries no bits of absent replicas.
    CoolWithoutBits,
    /// W5: the message that cools carries the bits of targets without their windows.
    CoolWithoutWindows,
    /// W5: members cool everything when a primary steps down that has no disk, and so has not cooled anything itself.
    CoolAfterDiskless,
    /// W5: a member that is away for a moment never hears of what is cooled meanwhile.
    CoolWithoutTheAway,
    /// W5: a member that is asked again cools what was written since it was asked first.
    CoolAgainWritten,
    /// W5: the primary cools its extents before its bits are durable.
    CoolOwnEarly,
    /// W5: a replica cools before the bits that came along are durable.
    CoolEarly,
    /// W6: after a short break nothing is sent again.
    NotSentAgain,
    /// W7: a request overtakes an earlier one for some of its blocks that waits for other blocks.
    HeldOvertaken,
    /// W7: requests of a client that is gone stay in the queue.
    DeadRequestsLive,
    /// F1: a replica obeys whoever sends, in whatever reign.
    ObeyAnybody,
    /// F1: a primary hears replicas of another reign.
    HearAnybody,
    /// F2: reads need no lease.
    ReadUnleased,
    /// F2: a lease runs from when it arrived, not from when it was asked for.
    LeaseFromPong,
    /// F2: a lease that was asked for before the session was open covers it.
    LeaseBeforeSession,
    /// F3: a new primary does not wait for the old one's lease.
    SkipLeaseWait,
    /// F3: a replica that restarted does not know that it may have granted before.
    RestartForgetsLease,
    /// F3: a connection that closes ends what was granted on it.
    CloseEndsLease,
    /// F4: a replica reports before its disk is idle.
    ReportUndrained,
    /// F4: a node is promoted before its disk is idle.
    PromoteUndrained,
    /// F4: a record that was stored for a session that broke opens the next one at once.
    StoredForAnother,
    /// F4: a reign begins before the disk is idle.
    BeginUndrained,
    /// M1: a member that is away is not waited for, although the record names it.
    CompleteBeforeEvicted,
    /// M1: an evicted replica's bits are set when the eviction is asked for.
    BitsAtRequest,
    /// M1: an evicted replica's window is forgotten.
    ForgetWindow,
    /// M1: of two members that leave by one record, the second is left behind after what the first held up is settled.
    EvictOneByOne,
    /// M2: whoever a proposal adds is not waited for before the answer.
    ProposedNotAwaited,
    /// M2: a lost answer is taken for a refusal.
    UnknownIsNo,
    /// M3: every start continues the life before it.
    TrustCrashed,
    /// M3: only lives that the stored record names are continued.
    UnheardIsUnclean,
    /// M3: membership is of a node, whatever its incarnation.
    MemberByName,
    /// M3: whom a proposal names in one life answers in another.
    OtherLifeAnswers,
    /// M3: the last of all does not wait for the other members.
    LastOfSome,
    /// M3: the last of all is the last primary, whatever disk it has now.
    LastPrimaryWhatever,
    /// M3: a member that was cleanly restarted counts before the record names its new life.
    RestartNotRenewed,
    /// M4: a target is admitted while blocks are dirty.
    AdmitDirty,
    /// M4: a target is admitted without the flush.
    AdmitUnflushed,
    /// M4: a target gets neither hot extents nor bits.
    AdmitEmptyHanded,
    /// M4: a target gets the bits of absent replicas without their windows.
    AdmitWithoutWindows,
    /// M4: extents are cooled while a target that was given its bits is not a member yet.
    CoolDuringAdmission,
    /// M4: a target says that all is stored before it is.
    AdmitUnstored,
    /// M4: a target does not get the bases of the bitmaps.
    AdmitWithoutBases,
    /// M5: nobody reports.
    ReportNothing,
    /// M5: a target forgets what it would report when its primary steps down.
    ForgetBeforeAdmission,
    /// M6: a bitmap serves whoever comes.
    BitmapServesAll,
    /// M6: a bitmap's base is that of the node, whatever life it is in.
    BaseOfTheNode,
    /// M6: who is given a used slot inherits what the bitmap in it is good for.
    SlotKeepsBase,
    /// M7: a stranger's introduction is believed.
    BelieveStrangers,
    /// P1: a replica is promoted whether it is in sync or not.
    PromoteAnybody,
    /// P2: a new primary does not make its own last writes equal.
    OwnMemoryIgnored,
    /// P2: a new primary ignores what the survivors remember.
    ReportsIgnored,
    /// P3: blocks that are not equal yet are served.
    ServeUnequal,
    /// P3: a flush does not wait for blocks that are not equal yet.
    FlushUnequal,
    /// P4: what all have written is forgotten, durable or not.
    SettleWritten,
    /// P4: what was made equal is forgotten before it is durable.
    EqualUnflushed,
    /// P4: a primary steps down before everything is durable.
    StepDownUnflushed,
    /// P4: what survivors reported is given up before it is in the stored bits of those who are away.
    UnitedUnstored,
    /// P5: hot extents are not dirty at a start.
    HotIsClean,
    /// P5: hot extents are not dirty at a promotion.
    HotIsCleanForAbsent,
    /// P6: a deposed primary goes on.
    NeverDeposed,
    /// R1: bitmaps are stored without the window.
    WindowNotStored,
    /// R1: windows are dropped with the reign.
    WindowNotFolded,
    /// R1: a target that refuses the reign leaves no window behind.
    FencedWithoutWindow,
    /// F1: a replica that refused to follow under a record that its primary has replaced is not asked again under the new one.
    RefusedForGood,
    /// R1: blocks that were found equal are not in the window.
    EqualNotInWindow,
    /// R2: a bit is cleared when its block is sent.
    ClearWhenSent,
    /// R2: a chunk takes no place in the order of requests.
    ChunksCross,
    /// R3: a write is sent without what it leaves of its end blocks.
    PartialBlocks,
    /// R4: a target does not note that it is inconsistent.
    NeverInconsistent,
    /// R4: a target gets blocks before it is durably inconsistent.
    ReadyEarly,
    /// R4: a replica is promoted before its disk says that it is consistent.
    PromoteUnstored,
    /// R5: a replica does not report its own bits.
    BitsNotReported,
    /// Q1: a node goes on under the reign that it finds.
    OldReignGoesOn,
    /// Q2: the side of a fork with the greater number is taken for the newer.
    ForkByNumber,
    /// Q3: nobody notes that writing has begun.
    NeverLatched,
    /// Q3: writing begins before that is durable.
    LatchUnstored,
    /// Q3: a record that was asked for before writing began goes on saying that nothing was written.
    LatchForgotten,
    /// Q4: both sides of a fork discard what they have.
    BothDiscard,
    /// Q4: a side that was discarded is taken for the member that the other side's record names.
    DiscardedIsMember,
    /// Q10: each side of a fork decides that it is the one that loses.
    EverybodyLoses,
    /// Q5: two that propose at the same moment grant each other.
    GrantEachOther,
    /// Q5: a proposal is refused by a peer that has heard of it from another one.
    RefuseKnown,
    /// Q5: a proposal that was refused elsewhere is not withdrawn.
    NeverWithdrawn,
    /// Q7: a replica that stops while another goes on stays up to date.
    NeverOutdated,
    /// Q8: the other replicas store an admission first.
    AdmittedKnowsFirst,
    /// Q9: a bystander does not follow the other side.
    BystanderStays,
    /// M1: a peer that says that it leaves is waited for.
    LeavingForgotten,
    /// R6: a target gets blocks that members do not have yet.
    TargetBeforeMembers,
    /// R7: a verify does not wait for the writes that are under way in the blocks that it compares.
    VerifyCrosses,
    /// R7: a verify begins while the members are being made equal, and counts what is dirty.
    VerifyUnequal,
    /// R8: the primary's copy wins against those of all others.
    RepairOutvoted,
    /// R8: two copies count as all there are while a third one is away.
    TwoOfThree,
    /// R8: what was found different is not made equal.
    RepairForgotten,
    /// H1: a hold does not wait for the writes that are under way.
    HoldUndrained,
    /// H1: a hold lets writes to the last volume begin.
    HoldSkipsVolume,
    /// H1: a hold does not wait until the members of a new reign are equal.
    HoldUnequal,
    /// H1: a hold that nobody releases does not end.
    HoldNeverEnds,
    /// H1: the release of a hold that is over says that it has lasted.
    HoldAlwaysWhole,
    /// W7: a forwarded write that was done before a fail-over is done again.
    ForwardedTwice,
    /// W7: a new primary forgets which forwarded writes its disk has.
    AppliedForgotten,
    /// W7: what the primary has done is taken for done by a replica that lacks it still.
    AppliedUnequal,
    /// W7: a part of the primary's list of forwarded writes begins to replace a replica's.
    PartOfListCounts,
    /// W7: a replica does not note which of the primary's writes were forwarded.
    OriginIgnored,
    /// W7: a request is sent again to a primary that does not know what was done.
    SentAgainToAnybody,
    /// W7: a client is let in before what was forwarded for others that are gone has arrived.
    EnterUnmet,
    /// W7: a forwarded write is answered when it is on the primary's disk.
    ForwardAnsweredEarly,
    /// Q11: a write that fails in flight for want of a quorum gives up its place in the order.
    FailedFlightsLeave,
    /// W8: whoever asks is let in beside a client that is to be alone.
    BarNobody,
    /// W8: what connected nodes say of their clients is not looked at, only who has come to this primary.
    BystandersShare,
    /// W8: clients that are to be alone go on when their node was out of touch, whoever has come meanwhile.
    ApartGoesOn,
    /// W8: a guest that was told to look for the next primary is in nobody's way any more, though the reign goes on.
    DismissedIsGone,
    /// W8: an answer to what a node asked for before lets its client in.
    AnswerBefore,
    /// Q2: clients of a node that forwards take the role from a primary that is out of sight.
    GuestsDecide,
    /// V1: a new range is written before every replica that counts has it.
    GrowAhead,
    /// V1: a replica that was asked to follow before its primary grew is given writes that it has no room for.
    NarrowSession,
    /// V2: maps that move to another region are not copied.
    MoveEmptyHanded,
    /// V2: what a copy of the activity map leaves out counts as hot as long as the old one has it.
    CopyLeavesHot,
    /// V2: the other superblock goes on naming the old regions.
    NameOnce,
}

/// Whether this bug is in the program now.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(super) const fn mutated(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use chosen::choose;
#[cfg(feature = "mutants")]
pub(super) use chosen::mutated;

#[cfg(feature = "mutants")]
mod chosen {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Mutant;

    const NONE: u8 = u8::MAX;

    static CHOSEN: AtomicU8 = AtomicU8::new(NONE);

    /// Puts a bug into every engine of this process, or takes it out.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.store(mutant.map_or(NONE, |m| m as u8), Ordering::Relaxed);
    }

    #[inline]
    pub(in crate::engine) fn mutated(mutant: Mutant) -> bool {
        CHOSEN.load(Ordering::Relaxed) == mutant as u8
    }
}
