//! The few system calls that others need: clocks, limits, sockets, devices, threads.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::ioctl::{self, Getter, Setter};
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::units::Instant;

/// The moment now, of CLOCK_BOOTTIME. No system call.
pub fn now() -> Instant {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
    let (seconds, nanoseconds) = (u64::try_from(tv_sec), u64::try_from(tv_nsec));
    let since_boot = seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(nanoseconds.unwrap_or(0));
    Instant(since_boot)
}

/// This boot's identity: it changes exactly when the machine restarts, and with it what no disk has made durable is gone.
///
/// # Errors
///
/// If /proc is not mounted.
pub fn boot_id() -> io::Result<u128> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits = text.trim().replace('-', "");
    u128::from_str_radix(&digits, 16).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// What a process may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Open descriptors; `None` for no limit.
    pub files: Option<u64>,
    /// Bytes of locked memory, for registered buffers; `None` for no limit.
    pub locked_bytes: Option<u64>,
}

/// Raises the limits on descriptors and locked memory as far as this process is allowed to; what they are then.
pub fn raise_limits() -> Limits {
    let raise = |resource| {
        let Rlimit { current, maximum } = getrlimit(resource);
        // Without a limit when the process is privileged, else up to the hard one.
        let attempts = [Rlimit { current: None, maximum: None }, Rlimit { current: maximum, maximum }];
        if current.is_some() {
            // What is refused stays as it was.
            let _raised = attempts.into_iter().any(|limit| setrlimit(resource, limit).is_ok());
        }
        getrlimit(resource).current
    };
    // There is no unlimited number of files: fs.nr_open bounds it, and EPERM follows; then the hard limit is what there is.
    Limits { files: raise(Resource::Nofile), locked_bytes: raise(Resource::Memlock) }
}

/// The process at the other end of a unix socket, as it was when it connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerCredentials {
    /// The process.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Who is at the other end of a unix socket (SO_PEERCRED).
///
/// # Errors
///
/// If it is not a unix socket.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<PeerCredentials> {
    let credentials = sockopt::socket_peercred(socket)?;
    let pid = u32::try_from(credentials.pid.as_raw_nonzero().get()).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(PeerCredentials { pid, uid: credentials.uid.as_raw(), gid: credentials.gid.as_raw() })
}

/// A process of this machine, by a descriptor: its number is not reused while this is held.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// Takes hold of a process.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none of this number.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Self(fd)),
            Err(Errno::SRCH) => Err(io::ErrorKind::NotFound.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it has ended: from then on it runs no instruction. (I/O that it has submitted may still be on its way; see the
    /// locks of [`OpenDisk`](super::OpenDisk).)
    ///
    /// # Errors
    ///
    /// Those of poll.
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut ended = [PollFd::new(&self.0, PollFlags::IN)];
        Ok(poll(&mut ended, Some(&Timespec::default()))? > 0)
    }

    /// The descriptor, which becomes readable when the process ends.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

/// How a TCP connection finds out that its other end is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpOptions {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Probes without an answer before it counts as broken.
    pub probes: u32,
    /// How long sent data may stay unacknowledged (TCP_USER_TIMEOUT); zero for the system's default.
    pub unacknowledged: Duration,
}

/// Sets TCP_NODELAY and keepalive; on a socket that is not TCP it does nothing.
///
/// # Errors
///
/// Those of setsockopt.
pub fn tune_tcp(socket: impl AsFd, options: &TcpOptions) -> io::Result<()> {
    let socket = socket.as_fd();
    match sockopt::set_tcp_nodelay(socket, true) {
        Err(Errno::OPNOTSUPP | Errno::NOPROTOOPT | Errno::INVAL) => return Ok(()),
        result => result?,
    }
    let whole_second = |time: Duration| time.max(Duration::from_secs(1));
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, whole_second(options.idle))?;
    sockopt::set_tcp_keepintvl(socket, whole_second(options.interval))?;
    sockopt::set_tcp_keepcnt(socket, options.probes)?;
    let millis = u32::try_from(options.unacknowledged.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(socket, millis)?;
    Ok(())
}

/// Lets a netlink socket hear what is told to a group.
///
/// # Errors
///
/// ENOTSOCK and its like, if it is no netlink socket; EINVAL if there is no such group.
pub fn join_netlink_group(socket: impl AsFd, group: u32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<u32>()).map_err(io::Error::other)?;
    // SAFETY: NETLINK_ADD_MEMBERSHIP reads one int of that length from the pointer; `group` outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            (&raw const group).cast(),
            length,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the file of a block device, where nobody else makes those of new devices; one that is there stays.
///
/// # Errors
///
/// EPERM without the right to.
pub fn make_block_node(path: &Path, major: u32, minor: u32) -> io::Result<()> {
    let (mode, number) = (rustix::fs::Mode::from(0o660), rustix::fs::makedev(major, minor));
    match rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::BlockDevice, mode, number) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The size of a block device in bytes.
///
/// # Errors
///
/// ENOTTY if it is not a block device.
pub fn device_bytes(device: impl AsFd) -> io::Result<u64> {
    // SAFETY: BLKGETSIZE64 writes one u64 to the pointer it is given.
    let bytes = unsafe { ioctl::ioctl(device, Getter::<BLKGETSIZE64, u64>::new()) }?;
    Ok(bytes)
}

/// The logical sector of a block device in bytes: what direct I/O must be a multiple of.
///
/// # Errors
///
/// ENOTTY if it is not a block device.
pub fn sector_bytes(device: impl AsFd) -> io::Result<u32> {
    Ok(rustix::fs::ioctl_blksszget(device)?)
}

/// Discards a range of a block device. Its contents are *undefined* afterwards: for storage that is given up, never for TRIM of
/// replicated data, which must read the same everywhere ([`Zeroing`](super::Zeroing)). Blocks until done.
///
/// # Errors
///
/// EOPNOTSUPP if the device cannot; EINVAL if the range is not of whole sectors.
pub fn discard(device: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    // SAFETY: BLKDISCARD reads two u64 from the pointer it is given.
    Ok(unsafe { ioctl::ioctl(device, Setter::<BLKDISCARD, [u64; 2]>::new([offset, length])) }?)
}

/// Fills a range of a block device with zeroes, by whatever means it has. Blocks until done.
///
/// # Errors
///
/// EINVAL if the range is not of whole sectors; EIO.
pub fn zero_out(device: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    // SAFETY: BLKZEROOUT reads two u64 from the pointer it is given.
    Ok(unsafe { ioctl::ioctl(device, Setter::<BLKZEROOUT, [u64; 2]>::new([offset, length])) }?)
}

/// Makes the calling thread run on one processor only.
///
/// # Errors
///
/// EINVAL if there is no such processor.
pub fn pin_thread(processor: usize) -> io::Result<()> {
    if processor >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(processor);
    Ok(sched_setaffinity(None, &set)?)
}

/// Takes an advisory lock on a byte range of a file (an *open file description* lock: it lives as long as the open file, in
/// whatever process, and as long as I/O that was submitted through it). `false` if another has it.
pub(super) fn lock_range(file: impl AsFd, start: u64, length: u64, shared: bool) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    let whole = |n| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let kind = if shared { libc::F_RDLCK } else { libc::F_WRLCK };
    let lock = libc::flock {
        l_type: i16::try_from(kind).map_err(|_| io::ErrorKind::InvalidInput)?,
        l_whence: i16::try_from(libc::SEEK_SET).map_err(|_| io::ErrorKind::InvalidInput)?,
        l_start: whole(start)?,
        l_len: whole(length)?,
        l_pid: 0,
    };
    // SAFETY: F_OFD_SETLK reads one `flock` from the pointer; `lock` outlives the call.
    let result = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    match result {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            error => Err(error),
        },
    }
}

const BLKGETSIZE64: ioctl::Opcode = ioctl::opcode::read::<usize>(0x12, 114);
const BLKDISCARD: ioctl::Opcode = ioctl::opcode::none(0x12, 119);
const BLKZEROOUT: ioctl::Opcode = ioctl::opcode::none(0x12, 127);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    use super::*;

    #[test]
    fn time_goes_on() {
        let before = now();
        assert!(before > Instant(0) && now() >= before);
    }

    #[test]
    fn one_boot_has_one_id() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert_ne!(boot_id().unwrap(), 0);
    }

    #[test]
    fn the_other_end_of_a_socketpair_is_this_process() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let peer = peer_credentials(&socket).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert!(!Process::open(peer.pid).unwrap().has_ended().unwrap());
    }

    #[test]
    fn a_process_is_known_to_have_ended() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(!process.has_ended().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(process.has_ended().unwrap());
    }

    #[test]
    fn limits_are_raised_to_the_hard_ones_at_least() {
        let hard = |resource| getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let (files, locked) = (hard(Resource::Nofile), hard(Resource::Memlock));
        let raised = raise_limits();
        assert!(raised.files.unwrap_or(u64::MAX) >= files && raised.locked_bytes.unwrap_or(u64::MAX) >= locked);
        assert_eq!(raise_limits(), raised);
    }

    #[test]
    fn a_thread_stays_where_it_is_pinned() {
        let pinned = std::thread::spawn(|| {
            pin_thread(0).unwrap();
            assert_eq!(rustix::thread::sched_getcpu(), 0);
            (pin_thread(CpuSet::MAX_CPU).is_err(), pin_thread(CpuSet::MAX_CPU - 1).is_err())
        });
        assert_eq!(pinned.join().unwrap(), (true, true));
    }

    #[test]
    fn tuning_leaves_unix_sockets_alone() {
        let options = TcpOptions {
            idle: Duration::from_secs(1),
            interval: Duration::from_secs(1),
            probes: 3,
            unacknowledged: Duration::from_secs(2),
        };
        let (unix, _other) = UnixStream::pair().unwrap();
        tune_tcp(&unix, &options).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tune_tcp(&tcp, &options).unwrap();
        assert!(tcp.nodelay().unwrap());
        assert_eq!(sockopt::tcp_user_timeout(&tcp).unwrap(), 2000);
    }
}
