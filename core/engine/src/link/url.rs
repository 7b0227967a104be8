//! Where a client connects: URLs with commas between them.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use fastmq_driver::sockets::Address;

use crate::error::{Error, Fault, Result, Status};

/// Servers that one text may name.
pub const SERVERS_MAX: usize = 64;
/// Longest path of a Unix socket.
const PATH_BYTES_MAX: usize = 107;

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// `unix:/path`.
    Unix(PathBuf),
    /// `tcp://host:port`; the host is looked up each time.
    Tcp(String),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
        }
    }
}

impl Server {
    /// The address to connect to. May ask a name server, and block for it.
    pub(super) fn address(&self) -> std::io::Result<Address> {
        match self {
            Self::Unix(path) => Ok(Address::Unix(path.clone())),
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
pub fn parse(urls: &str) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for url in urls.split(',') {
        let server = parse_one(url.trim()).map_err(|why| wrong(url, why))?;
        if servers.len() == SERVERS_MAX {
            return Err(wrong(url, "at most 64 servers are taken"));
        }
        servers.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        servers.push(server);
    }
    Ok(servers)
}

fn parse_one(url: &str) -> std::result::Result<Server, &'static str> {
    if url.is_empty() {
        return Err("it is empty; it looks like tcp://host:port or unix:/path");
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
            path => Ok(Server::Unix(path.into())),
        };
    }
    let Some(authority) = url.strip_prefix("tcp://") else {
        return Err(match url {
            _ if url.starts_with("shm:") => "this version has no shared memory; use unix:/path",
            _ if url.starts_with("tls:") => "this version has no TLS; use tcp://host:port",
            _ => "it begins with neither tcp:// nor unix:",
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
        Ok(port) if is_number && port > 0 => {}
        _ => return Err("the port is a number from 1 to 65,535"),
    }
    if has_brackets && authority.parse::<SocketAddr>().is_err() {
        return Err("what stands in brackets is no IPv6 address");
    }
    Ok(Server::Tcp(authority.to_owned()))
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
        let servers =
            parse("tcp://a.example:7,unix:/run/a b,tcp://[::1]:65535, unix:///x").unwrap();
        let texts: Vec<String> = servers.iter().map(Server::to_string).collect();
        let expected = [
            "tcp://a.example:7",
            "unix:/run/a b",
            "tcp://[::1]:65535",
            "unix:/x",
        ];
        assert_eq!(texts, expected);
        let address = parse("tcp://127.0.0.1:80/").unwrap()[0].address().unwrap();
        assert_eq!(address, Address::Tcp("127.0.0.1:80".parse().unwrap()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("", "it is empty"),
            ("tcp://a:1,,tcp://b:1", "it is empty"),
            ("a:1", "neither"),
            ("shm:/x", "no shared memory"),
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
            let error = parse(url).unwrap_err();
            assert_eq!(error.status(), Status::Invalid, "{url}");
            assert!(error.text().contains(why), "{url}: {error}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert!(parse(&long).unwrap_err().text().contains("107"));
        assert!(parse(&vec!["tcp://a:1"; 65].join(",")).is_err());
        assert_eq!(parse(&vec!["tcp://a:1"; 64].join(",")).unwrap().len(), 64);
    }
}
