//! Whether somebody still reads what the monitor prints.

use std::os::fd::{AsFd, AsRawFd};

/// Whether the other end of a pipe, or the terminal, was closed. A write would tell as well, but the next line may come late or never.
pub fn is_reader_gone(out: impl AsFd) -> bool {
    let mut poll = libc::pollfd {
        fd: out.as_fd().as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: the pointer is to one live pollfd, and the count is one.
    let ready = unsafe { libc::poll(&mut poll, 1, 0) };
    ready == 1 && poll.revents & (libc::POLLERR | libc::POLLHUP) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::pipe;

    #[test]
    fn a_closed_pipe_is_noticed_without_a_write() {
        let (reader, writer) = pipe().unwrap();
        assert!(!is_reader_gone(&writer));
        drop(reader);
        assert!(is_reader_gone(&writer));
        assert!(!is_reader_gone(tempfile::tempfile().unwrap()));
    }
}
