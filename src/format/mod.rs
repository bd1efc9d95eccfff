#![doc = include_str!("../docs/format.md")]

mod activity;
mod bitmap;
mod create;
mod dirty;
mod dump;
mod layout;
mod load;
mod page;
mod recognise;
mod superblock;

pub use activity::encode_activity_page;
pub use bitmap::{Bitmap, Runs};
pub use create::{NewReplica, SLOTS_DEFAULT, Step, create};
pub use dirty::{encode_dirty_page, encode_dirty_page_with};
pub use dump::{Dump, DumpError};
pub use layout::{Growth, PageWrite, SLOTS_MAX, Span, VOLUME_BYTES_MAX, VOLUMES_MAX, area_len, end_of, grow, plan};
pub use load::{Activity, Damage, LoadError, Loaded, Loader};
pub use page::{PAGE, PAGE_BITS};
pub use recognise::{Owner, Recognised, recognise};
pub use superblock::{
    LINEAGE_MAX, MEMBERS_MAX, Parted, PeerSlot, Present, Region, SUPERBLOCK, SlotsError, Superblock, SuperblockError, TooLarge,
    choose, superblock_at,
};
