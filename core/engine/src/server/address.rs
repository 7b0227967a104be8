//! URLs of listeners: `unix:PATH` and `tcp://HOST:PORT`.

use std::net::{Ipv4Addr, SocketAddr};

use fastmq_driver::sockets::Address;

use crate::error::{Error, Fault, Result, Status};

/// The address that a URL names. HOST is an IP address, in brackets for IPv6, or `localhost`.
///
/// # Errors
/// INVALID.
pub fn address_of(url: &str) -> Result<Address> {
    if let Some(path) = url.strip_prefix("unix:")
        && !path.is_empty()
    {
        return Ok(Address::Unix(path.into()));
    }
    let tcp = url.strip_prefix("tcp://").and_then(socket_address);
    tcp.map(Address::Tcp).ok_or_else(|| {
        Error::with(
            &Fault(
                Status::Invalid,
                "an address is unix:PATH or tcp://HOST:PORT",
            ),
            format_args!(
                "`{url}` is no address; it is unix:PATH or tcp://HOST:PORT, where HOST is an IP \
                 address or localhost"
            ),
        )
    })
}

fn socket_address(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into());
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_path_or_a_host_and_port() {
        let check = |url: &str, expected: Option<&str>| {
            let address = address_of(url).ok().map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{url}");
        };
        check("unix:/run/mq", Some("unix:/run/mq"));
        check("unix:mq", Some("unix:mq"));
        check("tcp://127.0.0.1:80", Some("tcp://127.0.0.1:80"));
        check("tcp://[::1]:80", Some("tcp://[::1]:80"));
        check("tcp://localhost:0", Some("tcp://127.0.0.1:0"));
        check("unix:", None);
        check("tcp://example.org:80", None);
        check("tcp://127.0.0.1", None);
        check("tcp://127.0.0.1:99999", None);
        check("127.0.0.1:80", None);
        check("", None);
    }
}
