//! Where servers are: `unix:PATH`, `shm:NAME`, `shm:/path` and `tcp://HOST:PORT`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use fastmq_driver::sockets::Address;

use crate::error::{Error, Fault, Result, Status};
use crate::socket_path::{self, PATH_BYTES_MAX};

/// Servers that one text may name.
pub const SERVERS_MAX: usize = 64;

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Url {
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `shm:NAME` or `shm:/path`: what follows, and the path of its Unix socket, over which clients
    /// get the memory.
    Shared(String, PathBuf),
    /// `tcp://HOST:PORT`.
    Tcp(String),
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Shared(name, _) => write!(f, "shm:{name}"),
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
        }
    }
}

impl Url {
    /// The address to connect to. May ask a name server, and block for it.
    pub(crate) fn address(&self) -> std::io::Result<Address> {
        match self {
            Self::Unix(path) => Ok(Address::Unix(path.clone())),
            Self::Shared(name, path) => {
                socket_path::check(name, path)?;
                Ok(Address::Unix(path.clone()))
            }
            Self::Tcp(authority) => {
                if let Ok(address) = authority.parse::<SocketAddr>() {
                    return Ok(Address::Tcp(address));
                }
                let found = authority.to_socket_addrs()?.next();
                let nobody = || std::io::Error::other("the name has no address");
                found.map(Address::Tcp).ok_or_else(nobody)
            }
        }
    }
}

/// The servers of `tcp://host:port,unix:/path`, in their order. INVALID names what is wrong.
pub fn servers(urls: &str) -> Result<Vec<Url>> {
    let mut servers = Vec::new();
    for url in urls.split(',') {
        let server = match parse(url.trim()) {
            Ok(Url::Tcp(authority)) if has_no_port(&authority) => Err(PORT_RANGE),
            parsed => parsed,
        };
        let server = server.map_err(|why| wrong(url, why))?;
        if servers.len() == SERVERS_MAX {
            return Err(wrong(url, "at most 64 servers are taken"));
        }
        servers.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        servers.push(server);
    }
    Ok(servers)
}

/// The address to listen at. HOST is an IP address or `localhost`, and port 0 takes a free one. The
/// directory of a named socket is made if it is missing.
///
/// # Errors
/// INVALID names what is wrong. IO: the directory of a named socket cannot be made, or is not this
/// user's alone.
pub fn listener(url: &str) -> Result<Address> {
    match parse(url.trim()).map_err(|why| wrong(url, why))? {
        Url::Unix(path) => Ok(Address::Unix(path)),
        Url::Shared(name, path) => {
            socket_path::prepare(&name, &path).map_err(|error| {
                let fault = &Fault(Status::Io, "the server cannot listen");
                Error::with_io(fault, "the directory of a named socket", &error)
            })?;
            Ok(Address::Unix(path))
        }
        Url::Tcp(authority) => {
            let local = authority.strip_prefix("localhost:");
            let address = match local.and_then(|port| port.parse().ok()) {
                Some(port) => Some((Ipv4Addr::LOCALHOST, port).into()),
                None => authority.parse().ok(),
            };
            let why = "who listens names an IP address or localhost";
            address.map(Address::Tcp).ok_or_else(|| wrong(url, why))
        }
    }
}

const PORT_RANGE: &str = "the port is a number from 1 to 65,535";

fn has_no_port(authority: &str) -> bool {
    let port = authority.rsplit_once(':');
    port.and_then(|(_, port)| port.parse::<u16>().ok()) == Some(0)
}

fn parse(url: &str) -> std::result::Result<Url, &'static str> {
    if url.is_empty() {
        return Err("it is empty; it looks like tcp://host:port, unix:/path or shm:NAME");
    }
    if let Some(path) = url.strip_prefix("unix:") {
        let path = match path.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            Some(_) => return Err("the path is absolute: unix:/path"),
            None => path,
        };
        return match path {
            "" => Err("the path is missing: unix:/path"),
            path if path.len() > PATH_BYTES_MAX => Err("the path has more than 107 bytes"),
            path if path.contains('\0') => Err("the path has a zero byte"),
            path => Ok(Url::Unix(path.into())),
        };
    }
    if let Some(name) = url.strip_prefix("shm:") {
        let path = socket_path::of(name)?;
        return Ok(Url::Shared(name.to_owned(), path));
    }
    let Some(authority) = url.strip_prefix("tcp://") else {
        return Err(match url {
            _ if url.starts_with("tls:") => "this version has no TLS; use tcp://host:port",
            _ => "it begins with neither tcp://, unix: nor shm:",
        });
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.contains(['/', '?', '#', '@']) {
        return Err("nothing follows the port, and nothing precedes the host");
    }
    let Some((host, port)) = authority.rsplit_once(':') else {
        return Err("the port is missing: tcp://host:port");
    };
    if host.is_empty() || host == "[]" {
        return Err("the host is missing: tcp://host:port");
    }
    let has_brackets = host.starts_with('[') && host.ends_with(']');
    if host.contains(':') && !has_brackets {
        return Err("an IPv6 address stands in brackets: tcp://[::1]:port");
    }
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(_) if is_number => {}
        _ => return Err(PORT_RANGE),
    }
    if has_brackets && authority.parse::<SocketAddr>().is_err() {
        return Err("what stands in brackets is no IPv6 address");
    }
    Ok(Url::Tcp(authority.to_owned()))
}

#[cold]
fn wrong(url: &str, why: &str) -> Error {
    Error::with(
        &Fault(Status::Invalid, "this is no URL of a server"),
        format_args!("\"{}\" is no URL of a server: {why}", url.trim()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_servers_in_their_order() {
        let named =
            servers("tcp://a.example:7,unix:/run/a b,tcp://[::1]:65535, unix:///x,shm:/y").unwrap();
        let texts: Vec<String> = named.iter().map(Url::to_string).collect();
        let expected = [
            "tcp://a.example:7",
            "unix:/run/a b",
            "tcp://[::1]:65535",
            "unix:/x",
            "shm:/y",
        ];
        assert_eq!(texts, expected);
        let address = servers("tcp://127.0.0.1:80/").unwrap()[0]
            .address()
            .unwrap();
        assert_eq!(address, Address::Tcp("127.0.0.1:80".parse().unwrap()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("", "it is empty"),
            ("tcp://a:1,,tcp://b:1", "it is empty"),
            ("a:1", "neither"),
            ("shm:", "the name is missing"),
            ("shm:a/b", "no slash"),
            ("unix:", "the path is missing"),
            ("unix://host/x", "the path is absolute"),
            ("tcp://a", "the port is missing"),
            ("tcp://:1", "the host is missing"),
            ("tcp://a:0", "the port is a number"),
            ("tcp://a:65536", "the port is a number"),
            ("tcp://a:+1", "the port is a number"),
            ("tcp://::1:80", "in brackets"),
            ("tcp://[x]:80", "no IPv6 address"),
            ("tcp://u@a:80", "nothing precedes"),
        ];
        for (url, why) in cases {
            let error = servers(url).unwrap_err();
            assert_eq!(error.status(), Status::Invalid, "{url}");
            assert!(error.text().contains(why), "{url}: {error}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert!(servers(&long).unwrap_err().text().contains("107"));
        assert!(servers(&vec!["tcp://a:1"; 65].join(",")).is_err());
        assert_eq!(servers(&vec!["tcp://a:1"; 64].join(",")).unwrap().len(), 64);
    }

    #[test]
    fn who_listens_names_an_address_and_may_leave_the_port_open() {
        let check = |url: &str, expected: Option<&str>| {
            let address = listener(url).ok().map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{url}");
        };
        check("unix:/run/mq", Some("unix:/run/mq"));
        check("unix:mq", Some("unix:mq"));
        check("shm:/run/mq", Some("unix:/run/mq"));
        check("tcp://127.0.0.1:80", Some("tcp://127.0.0.1:80"));
        check("tcp://[::1]:80", Some("tcp://[::1]:80"));
        check("tcp://localhost:0", Some("tcp://127.0.0.1:0"));
        for wrong in [
            "",
            "unix:",
            "shm:",
            "shm:a/b",
            "tcp://example.org:80",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:99999",
            "127.0.0.1:80",
        ] {
            check(wrong, None);
        }
    }
}
