//! What the kernel knows of a TCP connection's acknowledgements: `getsockopt(TCP_INFO)`, tcp(7).
//!
//! The only unsafe code of the program, in a crate of its own so that the rest can forbid it.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// A connection's acknowledgements, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgements {
    /// Everything that was written to the socket has been acknowledged.
    pub is_complete: bool,
    /// How long ago the last acknowledgement came, in whole ticks of the kernel (1 to 10 ms): up to
    /// one tick more or less than it truly is.
    pub last_since: Duration,
}

/// Asks the kernel.
///
/// # Errors
/// When the socket is not TCP, the connection is gone, or the kernel does not tell what is asked:
/// Linux does since 4.6, other systems do not.
pub fn acknowledgements(socket: impl AsFd) -> io::Result<Acknowledgements> {
    system::acknowledgements(socket.as_fd())
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::mem::{offset_of, size_of};
    use std::os::fd::{AsRawFd as _, BorrowedFd};
    use std::time::Duration;

    use libc::{IPPROTO_TCP, TCP_INFO, c_void, getsockopt, socklen_t, tcp_info};

    use super::Acknowledgements;

    pub(super) fn acknowledgements(socket: BorrowedFd<'_>) -> io::Result<Acknowledgements> {
        // SAFETY: `tcp_info` is integers alone, for which all bits zero are a value.
        let mut info: tcp_info = unsafe { std::mem::zeroed() };
        let mut len = socklen_t::try_from(size_of::<tcp_info>()).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open for as long as it is borrowed; `info` and `len` are
        // valid for writes during the call, and the kernel writes at most `len` bytes to `info`.
        let code = unsafe {
            getsockopt(
                socket.as_raw_fd(),
                IPPROTO_TCP,
                TCP_INFO,
                (&raw mut info).cast::<c_void>(),
                &raw mut len,
            )
        };
        if code != 0 {
            return Err(io::Error::last_os_error());
        }
        // older kernels know less, and say so by a shorter answer
        let known = offset_of!(tcp_info, tcpi_notsent_bytes) + size_of::<u32>();
        if usize::try_from(len).is_ok_and(|len| len < known) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Acknowledgements {
            is_complete: info.tcpi_unacked == 0 && info.tcpi_notsent_bytes == 0,
            last_since: Duration::from_millis(info.tcpi_last_ack_recv.into()),
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::os::fd::BorrowedFd;

    use super::Acknowledgements;

    pub(super) fn acknowledgements(_: BorrowedFd<'_>) -> io::Result<Acknowledgements> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        (near, listener.accept().expect("it connected").0)
    }

    #[test]
    fn what_the_peer_took_is_acknowledged() {
        let (mut near, mut far) = pair();
        near.write_all(&[7; 1_000]).expect("connected");
        far.read_exact(&mut [0; 1_000]).expect("sent");
        far.write_all(b"an answer carries the acknowledgement").expect("connected");
        near.read_exact(&mut [0; 1]).expect("sent");
        let seen = acknowledgements(&near).expect("TCP");
        assert!(seen.is_complete);
        assert!(seen.last_since < Duration::from_secs(60), "{seen:?}");
    }

    #[test]
    fn what_the_peer_has_no_room_for_is_not_acknowledged() {
        let (mut near, _far) = pair();
        near.set_nonblocking(true).expect("a socket");
        while near.write(&[7; 65_536]).is_ok() {}
        let seen = acknowledgements(&near).expect("TCP");
        assert!(!seen.is_complete);
    }

    #[test]
    fn a_socket_of_another_kind_is_an_error() {
        let (near, _far) = UnixStream::pair().expect("a pair");
        acknowledgements(&near).expect_err("not TCP");
    }
}
