//! What is allocated, and what zeroing costs.

use crate::nbd::{Errno, Tag, reply};
use crate::ring::os;
use crate::units::BlockRange;

use crate::runtime::shard::Shard;
use crate::runtime::slab::Key;

/// The longest range that is looked at for one answer, and the most extents of it. The client asks again for the rest; looking
/// at it waits for the file system.
const RANGE: u64 = 256 << 20;
const EXTENTS: usize = 512;

impl Shard {
    /// Answers BLOCK_STATUS from this node's replica, if a read of these blocks could be answered from it at this moment; otherwise
    /// everything counts as data.
    pub(super) fn block_status(&mut self, key: Key, tag: Tag, offset: u64, length: u64, one: bool) -> bool {
        let Some(client) = self.clients.get(key) else { return true };
        let Some(resource) = self.resources.get(client.resource) else { return true };
        let disk = resource.disks.as_ref().and_then(|disks| disks.volumes.get(&client.volume));
        let most = if one { 2 } else { EXTENTS };
        let extents = disk.map_or(Ok(Vec::new()), |disk| disk.extents(offset, length.min(RANGE), most));
        let mut extents = extents.unwrap_or_else(|error| {
            tracing::debug!(resource = %resource.name, %error, "cannot tell what is allocated");
            Vec::new()
        });
        // As with any read, the clock is looked at when the disk has answered: that may have taken longer than a lease lasts.
        let (now, links) = (os::now(), self.peers.links(resource.lane));
        let range = BlockRange::covering(client.volume, offset, length.min(RANGE));
        if !resource.engine.may_tell_holes(now, links, range) {
            extents.clear();
        }
        self.scratch.clear();
        let mut reply = reply::Status::begin(&client.mode, tag, length, one, &mut self.scratch);
        for extent in extents {
            let state = if extent.allocated { 0 } else { reply::STATE_HOLE | reply::STATE_ZERO };
            if !reply.push(extent.length, state) {
                break;
            }
        }
        reply.finish();
        if let Some(client) = self.clients.get_mut(key) {
            client.stream.put(&self.scratch);
        }
        self.speak(key);
        true
    }

    /// Whether zeroing costs less than writing zeroes, as far as this node knows.
    pub(super) fn zeroes_fast(&self, key: Key) -> bool {
        let Some(client) = self.clients.get(key) else { return true };
        let disks = self.resources.get(client.resource).and_then(|resource| resource.disks.as_ref());
        disks.and_then(|disks| disks.volumes.get(&client.volume)).is_none_or(|disk| disk.zeroes_fast())
    }

    pub(super) fn refuse_slow_zeroes(&mut self, key: Key, tag: Tag) -> bool {
        self.reply_error(key, tag, Errno::NotSupported, "the storage cannot make zeroes faster than by writing them");
        true
    }
}
