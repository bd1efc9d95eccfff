//! Loop devices: a file as a block device.
//!
//! A device made here goes by itself when its last user closes it (LO_FLAGS_AUTOCLEAR), so that one whose owner was killed does not
//! stay behind.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use super::os::make_block_node;

/// How a file becomes a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopOptions {
    /// Bytes of a logical block: a power of two, at most a page.
    pub block_bytes: u32,
    /// Writes are refused.
    pub read_only: bool,
}

/// A loop device that is set up. It lives while this is held, and longer while others have it open.
#[derive(Debug)]
pub struct LoopDevice {
    device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Makes a free loop device show `backing`, with direct I/O.
    ///
    /// # Errors
    ///
    /// NotFound without the loop driver; EPERM without the right to; those of the backing file.
    pub fn attach(backing: impl AsFd, options: LoopOptions) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
        for _ in 0..TRIES {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open_node(&path, number)?;
            // Above the descriptors of whatever serves the file: a process that dies closes its descriptors from the lowest up, and this
            // one, when it is the device's last, waits for writes to the file that nobody would serve any more.
            let device = File::from(rustix::io::fcntl_dupfd_cloexec(&device, HIGH)?);
            match configure(&device, &backing, options) {
                Ok(()) => return Ok(Self { device, path }),
                // Another was faster.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// The device.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the device take up its file's new size.
    ///
    /// # Errors
    ///
    /// Those of the ioctl.
    pub fn resize(&self) -> io::Result<()> {
        // SAFETY: LOOP_SET_CAPACITY takes no argument.
        match unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_SET_CAPACITY, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Whether somebody uses a block device exclusively: it is mounted, or part of something.
pub fn is_claimed(device: &Path) -> io::Result<bool> {
    use std::os::unix::fs::OpenOptionsExt;
    match OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(device) {
        Ok(_) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Opens a loop device; where nobody makes the nodes of new devices, it is made here.
fn open_node(path: &Path, number: i32) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).write(true).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_block_node(path, LOOP_MAJOR, u32::try_from(number).map_err(io::Error::other)?)?;
            open()
        }
        other => other,
    }
}

fn configure(device: &File, backing: &impl AsFd, options: LoopOptions) -> io::Result<()> {
    let fd = u32::try_from(backing.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    let mut config = LoopConfig { fd, block_size: options.block_bytes, info: LoopInfo::default(), reserved: [0; 8] };
    config.info.flags = AUTOCLEAR | DIRECT_IO | if options.read_only { READ_ONLY } else { 0 };
    // SAFETY: LOOP_CONFIGURE reads one `loop_config` from the pointer; `config` has that layout and outlives the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl Default for LoopInfo {
    fn default() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_MAJOR: u32 = 7;
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;
/// How often a free device may be lost to another.
const TRIES: usize = 32;
/// The lowest number that the device's descriptor gets.
const HIGH: i32 = 500;
