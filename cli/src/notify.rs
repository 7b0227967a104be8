//! What a service manager is told, by sd_notify(3); nobody, where `NOTIFY_SOCKET` names none.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use fastmq::{Driver, NullDriver};

/// Says something; whether somebody hears it is not our concern.
pub(crate) fn say(text: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|it| !it.is_empty()) else {
        return;
    };
    let said = send(path.as_encoded_bytes(), text);
    if let Err(error) = said {
        crate::remote::note(&format!("the service manager is not told: {error}"));
    }
}

/// The configuration is read again, from now until READY.
pub(crate) fn say_reloading() {
    let now_us = NullDriver::new().monotonic_ns() / 1000;
    say(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
}

fn send(path: &[u8], text: &str) -> io::Result<()> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(String::from_utf8_lossy(path).as_ref())?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(text.as_bytes(), &address).map(|_| ())
}
