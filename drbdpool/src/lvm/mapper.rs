//! Whether this kernel has device-mapper.

use std::fs::{self, OpenOptions};

use crate::PoolError;

/// Whether the kernel has device-mapper. Looking for it loads its module where there is one.
///
/// In doubt it is there: LVM then fails loudly where it cannot reach it, while direct mode would go on beside it.
pub(super) fn is_there() -> bool {
    if OpenOptions::new().read(true).write(true).open("/dev/mapper/control").is_ok() {
        return true;
    }
    // The node may be missing, or closed to us, as in a container, while the host's device-mapper uses the same disks.
    fs::read_to_string("/proc/misc").is_ok_and(|devices| lists_device_mapper(&devices))
}

/// What is said where it is needed and not there.
pub(super) fn missing(volume_group: &str) -> PoolError {
    let why = "this kernel has no device-mapper, which thin pools need; use a volume group without one (lvm:VG)".to_owned();
    PoolError::BadVolumeGroup { volume_group: volume_group.to_owned(), why }
}

fn lists_device_mapper(misc: &str) -> bool {
    misc.lines().any(|line| line.split_whitespace().nth(1) == Some("device-mapper"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_mapper_is_found_among_the_misc_devices() {
        assert!(lists_device_mapper("234 btrfs-control\n236 device-mapper\n229 fuse\n"));
        assert!(!lists_device_mapper("234 btrfs-control\n229 fuse\n"));
    }
}
