//! The system calls of stream sockets, each with the flags that a library needs.
//!
//! Close-on-exec and non-blocking at birth; `MSG_NOSIGNAL` with every send, so that a peer that has
//! gone is an error and never a SIGPIPE in the host; `TCP_NODELAY`, since the shard gathers by
//! itself what belongs together. No call here blocks.

use core::ptr;
use core::time::Duration;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use crate::event::own;

use super::address::{Address, RawAddress};
use super::network::Stream;
use super::{BACKLOG, DESCRIPTORS_MAX};

/// A connected socket that no shard has adopted. Closed when dropped.
#[derive(Debug)]
pub struct Socket(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    Kernel(OwnedFd),
    Simulated(Stream),
}

/// Who is at the other end of a Unix socket: what the kernel noted when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The process.
    pub process: i32,
    /// Its effective user.
    pub user: u32,
    /// Its effective group.
    pub group: u32,
}

impl Socket {
    /// Takes over a connected stream socket that comes from elsewhere.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(Kind::Kernel(fd))
    }

    /// The descriptor, of which one of the simulation has none.
    #[must_use]
    pub fn into_fd(self) -> Option<OwnedFd> {
        match self.0 {
            Kind::Kernel(fd) => Some(fd),
            Kind::Simulated(_) => None,
        }
    }

    /// The descriptor, for tiers of the kernel.
    pub(super) fn kernel(self) -> io::Result<OwnedFd> {
        self.into_fd().ok_or_else(|| {
            let says = "a simulated socket belongs to a simulated network";
            io::Error::new(io::ErrorKind::InvalidInput, says)
        })
    }
}

/// What −1 of a system call stands for; repeats a call that a signal has interrupted.
fn checked(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(count) = usize::try_from(call()) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

fn open(family: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointer is passed.
    own(unsafe { libc::socket(family, kind, 0) })
}

/// How long the kernel may take to close the sockets that the io_uring of a killed process still
/// held: 4 to 24 ms were seen. Until then a server that is started again finds its address in use.
const LEFT_BEHIND: Duration = Duration::from_millis(250);

/// Tries `attempt` again and again while `is_left_behind` says so of its result, for at most
/// [`LEFT_BEHIND`].
fn retry<T>(mut attempt: impl FnMut() -> T, is_left_behind: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let result = attempt();
        if !is_left_behind(&result) || begun.elapsed() >= LEFT_BEHIND {
            return result;
        }
        thread::sleep(LEFT_BEHIND / 10);
    }
}

/// A socket that listens. A port in use is tried again for [`LEFT_BEHIND`]; a path is the
/// owner's alone.
pub(super) fn listen(address: &Address) -> io::Result<OwnedFd> {
    let raw = RawAddress::of(address)?;
    let mut fd = open(raw.family())?;
    let is_path = raw.family() == libc::AF_UNIX;
    if is_path {
        // Linux makes the file with the mode of the socket, so there is no moment in which others
        // could connect.
        let file = File::from(fd);
        file.set_permissions(Permissions::from_mode(0o600))?;
        fd = file.into();
    } else {
        // A restarted server takes over its port from connections that are still ending.
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    }
    if raw.family() == libc::AF_INET6 {
        // One socket, one family: `[::]` next to `0.0.0.0` works, whatever the host's default.
        set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    let storage = (&raw const raw.storage).cast::<libc::sockaddr>();
    // SAFETY: the address is `length` bytes long and alive for the call.
    let bind = || checked(|| unsafe { libc::bind(fd.as_raw_fd(), storage, raw.length) } as isize);
    let is_in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    retry(bind, |bound| {
        !is_path && bound.as_ref().is_err_and(is_in_use)
    })?;
    // SAFETY: no pointer is passed.
    checked(|| unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) } as isize)?;
    Ok(fd)
}

/// Whether the file `path` is a socket, and somebody listens at it: who answers for longer than
/// [`LEFT_BEHIND`]. `None`: it is no socket, or cannot be asked.
pub fn is_answered(path: &Path) -> Option<bool> {
    if !fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket()) {
        return None;
    }
    match retry(|| UnixStream::connect(path), Result::is_ok) {
        Ok(_) => Some(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Some(false),
        Err(_) => None,
    }
}

/// Whether a socket that somebody else has made is one that connections can be accepted of.
pub(super) fn check_listening(fd: &OwnedFd) -> io::Result<()> {
    let option = |name| get_option::<libc::c_int>(fd, libc::SOL_SOCKET, name);
    let is_stream = option(libc::SO_TYPE).is_ok_and(|kind| kind == libc::SOCK_STREAM);
    if is_stream && option(libc::SO_ACCEPTCONN).is_ok_and(|is_listening| is_listening != 0) {
        return Ok(());
    }
    let says = "the descriptor is no stream socket that listens";
    Err(io::Error::new(io::ErrorKind::InvalidInput, says))
}

/// Takes one connection that waits; `WouldBlock` if none does.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let (no_address, no_length) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: the peer's address is not asked for, which two null pointers say.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), no_address, no_length, flags) };
    own(fd)
}

/// Starts to connect; true if that is done already.
pub(super) fn connect(address: &Address) -> io::Result<(OwnedFd, bool)> {
    let raw = RawAddress::of(address)?;
    let fd = open(raw.family())?;
    set_no_delay(&fd);
    let storage = (&raw const raw.storage).cast::<libc::sockaddr>();
    // SAFETY: the address is `length` bytes long and alive for the call.
    let result = unsafe { libc::connect(fd.as_raw_fd(), storage, raw.length) };
    if result == 0 {
        return Ok((fd, true));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // An interrupted connect goes on by itself.
        Some(libc::EINPROGRESS | libc::EINTR) => Ok((fd, false)),
        _ => Err(error),
    }
}

/// What has become of a connect, or of the connection.
pub(super) fn take_error(fd: &OwnedFd) -> io::Result<()> {
    match get_option::<libc::c_int>(fd, libc::SOL_SOCKET, libc::SO_ERROR)? {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Sends at once what is kept back to be sent in larger pieces: nothing for Unix sockets, which
/// refuse the option.
pub(super) fn set_no_delay(fd: &OwnedFd) {
    let _ = set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
}

/// Whether calls without `MSG_DONTWAIT` wait. The ring wants sockets that do: on others it gives
/// `EAGAIN` back on some kernels, instead of waiting for the socket.
pub(super) fn set_blocking(fd: &OwnedFd, is_blocking: bool) -> io::Result<()> {
    let mut is_non_blocking = libc::c_int::from(!is_blocking);
    let number = &raw mut is_non_blocking;
    // SAFETY: FIONBIO reads one `int`, which is alive for the call.
    checked(|| unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO as _, number) } as isize)
        .map(|_| ())
}

/// Sends what there is room for; 0: there is none now.
pub(super) fn send(fd: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let (data, count) = (bytes.as_ptr().cast(), bytes.len());
    // SAFETY: `data` is `count` readable bytes.
    match checked(|| unsafe { libc::send(fd.as_raw_fd(), data, count, flags) }) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        sent => sent,
    }
}

/// Receives what is there; 0 is the end.
pub(super) fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (data, count) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: `data` is `count` writable bytes.
    checked(|| unsafe { libc::recv(fd.as_raw_fd(), data, count, libc::MSG_DONTWAIT) })
}

/// Room for the descriptors of one message, aligned as control messages are.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// `CMSG_SPACE` of the largest set: a header of at most 16 bytes, and alignment.
const CONTROL_BYTES: usize = 16 + DESCRIPTORS_MAX * size_of::<RawFd>() + 8;

/// A message of one part; `control` bytes of ancillary data.
fn message(part: &mut libc::iovec, control: &mut Control, control_bytes: usize) -> libc::msghdr {
    // SAFETY: `msghdr` is pointers and integers, for which zeros are a value.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control_bytes as _;
    message
}

/// Sends all the bytes and the descriptors, or nothing.
pub(super) fn send_descriptors(
    fd: &OwnedFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let size = size_of_val(descriptors) as libc::c_uint;
    // SAFETY: computes a number from a number.
    let space = unsafe { libc::CMSG_SPACE(size) } as usize;
    assert!(space <= CONTROL_BYTES, "checked against DESCRIPTORS_MAX");
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let message = message(&mut part, &mut control, space);
    // SAFETY: the message has a control buffer of `space` bytes, so there is a first header.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: the header is inside the zeroed control buffer, which is aligned for it.
    let fields = unsafe { &mut *header };
    fields.cmsg_level = libc::SOL_SOCKET;
    fields.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: computes a number from a number.
    fields.cmsg_len = unsafe { libc::CMSG_LEN(size) } as _;
    // SAFETY: the data begins behind the header, inside the control buffer.
    let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
    for (index, descriptor) in descriptors.iter().enumerate() {
        // SAFETY: `space` has room for every descriptor.
        let place = unsafe { data.add(index) };
        // SAFETY: inside the control buffer; a control message's data need not be aligned.
        unsafe { place.write_unaligned(descriptor.as_raw_fd()) };
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: everything that the message points to is alive for the call.
    let sent = checked(|| unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) })?;
    // A page of a Unix socket is one buffer of the kernel, which is there or not.
    if sent == bytes.len() {
        return Ok(());
    }
    let says = format!(
        "only {sent} of {} bytes went with the descriptors",
        bytes.len()
    );
    Err(io::Error::new(io::ErrorKind::WriteZero, says))
}

/// Receives what is there with the descriptors that come with it, close-on-exec.
pub(super) fn receive_descriptors(
    fd: &OwnedFd,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut message = message(&mut part, &mut control, CONTROL_BYTES);
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let count =
        // SAFETY: everything that the message points to is alive and writable for the call.
        checked(|| unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) })?;
    // SAFETY: the kernel has filled in the control buffer and its length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: a header that is not null is inside the control buffer, which is aligned.
        let fields = unsafe { &*header };
        if fields.cmsg_level == libc::SOL_SOCKET && fields.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: the data begins behind the header, inside the control buffer.
            let data = unsafe { libc::CMSG_DATA(header) };
            let head = data as usize - header as usize;
            let bytes = (fields.cmsg_len as usize).saturating_sub(head);
            take_descriptors(data.cast(), bytes / size_of::<RawFd>(), descriptors);
        }
        // SAFETY: the header belongs to this message.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(count)
}

/// Owns `count` descriptors that the kernel has put at `data`.
fn take_descriptors(data: *const RawFd, count: usize, descriptors: &mut Vec<OwnedFd>) {
    for index in 0..count {
        // SAFETY: the kernel's length says that there are `count`.
        let place = unsafe { data.add(index) };
        // SAFETY: as above; a control message's data need not be aligned.
        let fd = unsafe { place.read_unaligned() };
        // SAFETY: the kernel has just made this descriptor for us.
        descriptors.push(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

/// Which side of a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Sending,
    Both,
}

pub(super) fn shutdown(fd: &OwnedFd, end: End) -> io::Result<()> {
    let how = match end {
        End::Sending => libc::SHUT_WR,
        End::Both => libc::SHUT_RDWR,
    };
    // SAFETY: no pointer is passed.
    checked(|| unsafe { libc::shutdown(fd.as_raw_fd(), how) } as isize).map(|_| ())
}

/// Who connected, of a Unix socket.
pub(super) fn credentials(fd: &OwnedFd) -> io::Result<Credentials> {
    if get_option::<libc::c_int>(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)? != libc::AF_UNIX {
        let says = "only a Unix socket knows who is at its other end";
        return Err(io::Error::new(io::ErrorKind::Unsupported, says));
    }
    let raw = get_option::<libc::ucred>(fd, libc::SOL_SOCKET, libc::SO_PEERCRED)?;
    Ok(Credentials {
        process: raw.pid,
        user: raw.uid,
        group: raw.gid,
    })
}

pub(super) fn local_address(fd: &OwnedFd) -> io::Result<Address> {
    let mut raw = RawAddress::empty();
    let storage = (&raw mut raw.storage).cast::<libc::sockaddr>();
    let length = &raw mut raw.length;
    // SAFETY: the storage has as many writable bytes as the length says.
    checked(|| unsafe { libc::getsockname(fd.as_raw_fd(), storage, length) } as isize)?;
    raw.read()
}

pub(super) fn peer_address(fd: &OwnedFd) -> io::Result<Address> {
    let mut raw = RawAddress::empty();
    let storage = (&raw mut raw.storage).cast::<libc::sockaddr>();
    let length = &raw mut raw.length;
    // SAFETY: the storage has as many writable bytes as the length says.
    checked(|| unsafe { libc::getpeername(fd.as_raw_fd(), storage, length) } as isize)?;
    raw.read()
}

fn set_option(
    fd: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let (data, size) = ((&raw const value).cast(), size_of::<libc::c_int>());
    // SAFETY: the value is as long as it says and alive for the call.
    let call = || unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, data, size as libc::socklen_t) as isize
    };
    checked(call).map(|_| ())
}

/// Reads an option whose type is integers only.
fn get_option<T: Copy>(fd: &OwnedFd, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    // SAFETY: the callers' types are integers, for which zeros are a value.
    let mut value: T = unsafe { core::mem::zeroed() };
    let mut size = size_of::<T>() as libc::socklen_t;
    let (data, size) = ((&raw mut value).cast(), &raw mut size);
    // SAFETY: the value is as long as the size says, and both are writable.
    checked(|| unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, data, size) } as isize)?;
    Ok(value)
}
