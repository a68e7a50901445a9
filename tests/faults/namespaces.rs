//! A mount and a network namespace for one seed. They belong to the seed's thread and to the processes that it starts, and end
//! with them. Nothing of the machine is changed.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

/// The broker's address as affectd sees it.
pub const BROKER: &str = "10.77.0.1";
const BOARD: &str = "10.77.0.2";
/// The hardware addresses of both ends.
const BROKER_MAC: &str = "02:00:00:00:00:01";
const BOARD_MAC: &str = "02:00:00:00:00:02";
const NOBODYS_MAC: &str = "02:00:00:00:00:99";

/// Gives this thread mounts of its own. Fails without the right to mount.
pub fn own_mounts() -> io::Result<()> {
    // SAFETY: unshare takes no pointer.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let root = c"/";
    // SAFETY: the path is a C string that lives during the call, and the other pointers may be null for this operation.
    check(unsafe {
        libc::mount(
            std::ptr::null(),
            root.as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null(),
        )
    })
}

/// Mounts an empty file system in memory at `path`.
pub fn mount_memory(path: &Path, kib: u32, read_only: bool) {
    let flags = match read_only {
        true => libc::MS_RDONLY,
        false => 0,
    };
    let (path, options) = (c_path(path), CString::new(format!("size={kib}k")).unwrap());
    // SAFETY: all pointers are to C strings that live during the call.
    let mounted = check(unsafe {
        libc::mount(
            c"none".as_ptr(),
            path.as_ptr(),
            c"tmpfs".as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    });
    mounted.unwrap_or_else(|e| panic!("tmpfs cannot be mounted ({e})"));
}

/// Removes the newest mount at `path`, even if a file in it is open.
pub fn unmount(path: &Path) {
    let path = c_path(path);
    // SAFETY: the pointer is to a C string that lives during the call.
    let unmounted = check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) });
    unmounted.unwrap_or_else(|e| panic!("tmpfs cannot be unmounted ({e})"));
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).unwrap()
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Two network namespaces with a cable between them: this thread's, where the broker runs, and that of affectd.
pub struct Cable {
    board: OwnedFd,
}

impl Cable {
    /// Fails without the rights, or without `ip` of iproute2.
    pub fn new() -> io::Result<Cable> {
        ip(None, "-V")?;
        let make = || -> io::Result<OwnedFd> {
            // SAFETY: unshare takes no pointer. It changes this thread only.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        };
        let board = thread::spawn(make).join().expect("the thread does not panic")?;
        // SAFETY: as above.
        check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
        let cable = Cable { board };
        let path = format!("/proc/{}/fd/{}", std::process::id(), cable.board.as_raw_fd());
        ip(None, "link set lo up")?;
        ip(
            None,
            &format!("link add broker address {BROKER_MAC} type veth peer name board address {BOARD_MAC} netns {path}"),
        )?;
        ip(None, &format!("addr add {BROKER}/24 dev broker"))?;
        ip(None, "link set broker up")?;
        for command in [
            "link set lo up".to_owned(),
            format!("addr add {BOARD}/24 dev board"),
            "link set board up".to_owned(),
        ] {
            ip(Some(cable.board.as_raw_fd()), &command)?;
        }
        cable.connect();
        Ok(cable)
    }

    /// Starts `command` on affectd's side.
    pub fn apply(&self, command: &mut Command) {
        enter(command, self.board.as_raw_fd());
    }

    /// Packets in both directions go to an address that nobody has, so they vanish. Both sides still see a connected cable.
    pub fn black_hole(&self) {
        self.set_neighbours(NOBODYS_MAC, NOBODYS_MAC);
    }

    pub fn connect(&self) {
        self.set_neighbours(BROKER_MAC, BOARD_MAC);
    }

    fn set_neighbours(&self, broker: &str, board: &str) {
        let of_board = format!("neigh replace {BROKER} lladdr {broker} nud permanent dev board");
        let of_broker = format!("neigh replace {BOARD} lladdr {board} nud permanent dev broker");
        let set = ip(Some(self.board.as_raw_fd()), &of_board).and_then(|()| ip(None, &of_broker));
        set.unwrap_or_else(|e| panic!("ip neigh: {e}"));
    }
}

/// Starts `command` in the network namespace `network`.
fn enter(command: &mut Command, network: RawFd) {
    // SAFETY: setns is safe to call between fork and exec. The descriptor is open as long as the cable is.
    unsafe {
        command.pre_exec(move || check(libc::setns(network, libc::CLONE_NEWNET)));
    }
}

/// Runs `ip` with these arguments in this thread's namespace, or in `network`.
fn ip(network: Option<RawFd>, arguments: &str) -> io::Result<()> {
    let mut command = Command::new("ip");
    // Debian installs it in /usr/sbin, which is not in the PATH of ordinary users.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command.args(arguments.split(' ')).stdout(Stdio::null());
    if let Some(network) = network {
        enter(&mut command, network);
    }
    match command.status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("ip {arguments}: {status}"))),
    }
}
