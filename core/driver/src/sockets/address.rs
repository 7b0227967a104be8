//! Where a socket listens or connects, and its form for the kernel.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Where a stream socket listens or connects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A path of the file system, at most 107 bytes long; empty for a socket without a name.
    Unix(PathBuf),
    /// IPv4 or IPv6, and a port.
    Tcp(SocketAddr),
}

/// An address as system calls take it.
pub(super) struct RawAddress {
    pub(super) storage: libc::sockaddr_storage,
    pub(super) length: libc::socklen_t,
}

/// Where the path begins in `sockaddr_un`, on every target of Linux.
const PATH_OFFSET: usize = core::mem::offset_of!(libc::sockaddr_un, sun_path);
/// A path and the zero behind it.
const PATH_BYTES: usize = size_of::<libc::sockaddr_un>() - PATH_OFFSET;

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl RawAddress {
    /// An address that a system call fills in.
    pub(super) fn empty() -> Self {
        // SAFETY: `sockaddr_storage` is integers, for which zeros are a value.
        let storage = unsafe { core::mem::zeroed() };
        Self {
            storage,
            length: size_of::<libc::sockaddr_storage>() as libc::socklen_t,
        }
    }

    pub(super) fn of(address: &Address) -> io::Result<Self> {
        match address {
            Address::Unix(path) => Self::of_path(path.as_os_str().as_bytes()),
            Address::Tcp(SocketAddr::V4(address)) => {
                // SAFETY: `sockaddr_in` is integers, for which zeros are a value.
                let mut raw: libc::sockaddr_in = unsafe { core::mem::zeroed() };
                raw.sin_family = libc::AF_INET as libc::sa_family_t;
                raw.sin_port = address.port().to_be();
                raw.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
                Ok(Self::over(raw))
            }
            Address::Tcp(SocketAddr::V6(address)) => {
                // SAFETY: `sockaddr_in6` is integers, for which zeros are a value.
                let mut raw: libc::sockaddr_in6 = unsafe { core::mem::zeroed() };
                raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                raw.sin6_port = address.port().to_be();
                raw.sin6_flowinfo = address.flowinfo();
                raw.sin6_addr.s6_addr = address.ip().octets();
                raw.sin6_scope_id = address.scope_id();
                Ok(Self::over(raw))
            }
        }
    }

    fn of_path(path: &[u8]) -> io::Result<Self> {
        if path.is_empty() || path.len() >= PATH_BYTES || path.contains(&0) {
            let says = format!(
                "the socket path has {} bytes; it may be 1 to {}, none of them zero",
                path.len(),
                PATH_BYTES - 1
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, says));
        }
        // SAFETY: `sockaddr_un` is integers, for which zeros are a value.
        let mut raw: libc::sockaddr_un = unsafe { core::mem::zeroed() };
        raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in raw.sun_path.iter_mut().zip(path) {
            *to = *from as libc::c_char;
        }
        let mut address = Self::over(raw);
        address.length = (PATH_OFFSET + path.len() + 1) as libc::socklen_t;
        Ok(address)
    }

    /// Puts one family's form into the storage that is large enough for all.
    fn over<T: Copy>(raw: T) -> Self {
        const { assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>()) };
        let mut address = Self::empty();
        let to = (&raw mut address.storage).cast::<T>();
        // SAFETY: the storage is at least as large as `T` and aligned for every address.
        unsafe { to.write(raw) };
        address.length = size_of::<T>() as libc::socklen_t;
        address
    }

    pub(super) fn family(&self) -> libc::c_int {
        libc::c_int::from(self.storage.ss_family)
    }

    /// What a system call has filled in.
    pub(super) fn read(&self) -> io::Result<Address> {
        match self.family() {
            libc::AF_UNIX => Ok(Address::Unix(self.path())),
            libc::AF_INET => {
                // SAFETY: the family says which form it is; the storage is aligned for all.
                let raw = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
                let address = SocketAddrV4::new(ip, u16::from_be(raw.sin_port));
                Ok(Address::Tcp(address.into()))
            }
            libc::AF_INET6 => {
                // SAFETY: the family says which form it is; the storage is aligned for all.
                let raw = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
                let port = u16::from_be(raw.sin6_port);
                let (flow, scope) = (raw.sin6_flowinfo, raw.sin6_scope_id);
                Ok(Address::Tcp(
                    SocketAddrV6::new(ip, port, flow, scope).into(),
                ))
            }
            family => {
                let says = format!("the socket is of family {family}, not Unix or TCP");
                Err(io::Error::new(io::ErrorKind::Unsupported, says))
            }
        }
    }

    fn path(&self) -> PathBuf {
        // SAFETY: the family says which form it is; the storage is aligned for all.
        let raw = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_un>() };
        let count = (self.length as usize).saturating_sub(PATH_OFFSET);
        let bytes = raw.sun_path.iter().take(count).map(|byte| *byte as u8);
        let path: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
        PathBuf::from(OsStr::from_bytes(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_kernels_form() {
        let check = |address: Address| {
            assert_eq!(RawAddress::of(&address).unwrap().read().unwrap(), address);
        };
        check(Address::Tcp("127.0.0.1:80".parse().unwrap()));
        check(Address::Tcp("[::1]:65535".parse().unwrap()));
        check(Address::Tcp("[fe80::1%3]:7".parse().unwrap()));
        check(Address::Unix("/tmp/a b.sock".into()));
        check(Address::Unix("x".repeat(107).into()));
    }

    #[test]
    fn a_path_that_does_not_fit_is_refused_with_the_limit() {
        for path in [String::new(), "x".repeat(108), "a\0b".to_owned()] {
            let error = RawAddress::of(&Address::Unix(path.into())).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("1 to 107"), "{error}");
        }
    }
}
