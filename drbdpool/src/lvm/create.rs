//! Making a volume group, and a thin pool in it, of empty devices.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::command::Lvm;
use super::{LvmOptions, LvmPool, mapper, valid_thin_pool, valid_volume_group};
use crate::device::check_empty;
use crate::{PoolError, PoolSpec};

/// How much of a new group its thin pool gets, for LVM's `--extents`. The rest is for the pool's metadata to grow into, of which LVM
/// keeps a spare copy.
const THIN_SHARE: &str = "95%FREE";

impl LvmPool {
    /// See [`create_pool`](crate::create_pool).
    pub(crate) fn make(spec: &PoolSpec, devices: &[PathBuf], options: LvmOptions) -> Result<(), PoolError> {
        let bad = |why: &str| PoolError::BadSpec { spec: spec.to_string(), why: why.to_owned() };
        let (volume_group, thin) = match spec {
            PoolSpec::Lvm { volume_group } => (volume_group, None),
            PoolSpec::LvmThin { volume_group, thin_pool } => (volume_group, Some(thin_pool)),
            PoolSpec::File { .. } | PoolSpec::FileThin { .. } => {
                return Err(bad("a pool of files needs no device; name its directory when you add it"));
            }
        };
        valid_volume_group(volume_group).and_then(|()| thin.map_or(Ok(()), |thin| valid_thin_pool(thin))).map_err(bad)?;
        let mapper = mapper::is_there();
        if thin.is_some() && !mapper {
            return Err(mapper::missing(volume_group));
        }
        check_devices(spec, devices)?;
        let lvm = Lvm::new(options, mapper)?;
        match lvm.volume_group(volume_group) {
            Err(PoolError::NoVolumeGroup { .. }) => {}
            Err(error) => return Err(error),
            Ok(_) => {
                let why = "it exists already; it can be a pool as it is, or give the new one another name".to_owned();
                return Err(PoolError::BadVolumeGroup { volume_group: volume_group.clone(), why });
            }
        }
        // Without --yes: should LVM find what was not found here, it asks, hears nothing, and gives up.
        let paths = devices.iter().map(|device| device.to_string_lossy().into_owned());
        let args: Vec<_> = ["--".to_owned(), volume_group.clone()].into_iter().chain(paths.clone()).collect();
        lvm.change("vgcreate", &args)?;
        let Some(thin) = thin else { return Ok(()) };
        make_thin(&lvm, volume_group, thin).inspect_err(|_| {
            // As it was before; what cannot be undone LVM's own tools show.
            let _ = lvm.change("vgremove", &["--yes", "--", volume_group]);
            let _ = lvm.change("pvremove", &["--".to_owned()].into_iter().chain(paths).collect::<Vec<_>>());
        })
    }
}

fn make_thin(lvm: &Lvm, volume_group: &str, thin: &str) -> Result<(), PoolError> {
    let kind = ["--yes", "--type", "thin-pool", "--zero", "y", "--extents", THIN_SHARE];
    lvm.change("lvcreate", &[&kind[..], &["--name", thin, "--", volume_group]].concat())?;
    // A write that finds the pool full shall fail at once: its replica is given up, and the others go on. LVM's default is to let
    // it wait for a minute, and everybody with it.
    lvm.change("lvchange", &["--errorwhenfull", "y", "--", &format!("{volume_group}/{thin}")])
}

fn check_devices(spec: &PoolSpec, devices: &[PathBuf]) -> Result<(), PoolError> {
    if devices.is_empty() {
        return Err(PoolError::BadSpec { spec: spec.to_string(), why: "it needs a device at least".to_owned() });
    }
    let mut seen = BTreeSet::new();
    for device in devices {
        // A path that cannot be taken for an option, and that LVM knows.
        if !device.is_absolute() || device.to_str().is_none() {
            return Err(PoolError::NoDevice { device: device.clone() });
        }
        check_empty(device)?;
        let number = fs::metadata(device).map_err(PoolError::io("examine", device))?.rdev();
        if !seen.insert(number) {
            return Err(PoolError::DeviceInUse { device: device.clone(), what: "what was named before it".to_owned() });
        }
    }
    Ok(())
}
