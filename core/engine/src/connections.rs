//! Presence of connections: which clients of a server are there, told as messages on reserved
//! subjects to whoever listens, in the server's process or at another client.
//!
//! They stand in the list of the listeners, under its lock, so that who listens late misses nobody
//! and is told of nobody twice, as with subscriptions.

use fastmq_memory::allocation::try_bytes;
use fastmq_memory::sync::lock;

use crate::broker::Broker;
use crate::presence::Notice;

/// Which client has connected: on this subject and its name behind it.
///
/// The payload is the name as the client gave it, the header [`HEADER_CLIENT`] has its number. A
/// name that would make it no subject is told on this subject alone.
pub const SUBJECT_CONNECTED: &str = "$SYS.CONNECTED";
/// Which one has gone, likewise. The header [`HEADER_BROKEN`] says why, if it has not said goodbye.
pub const SUBJECT_DISCONNECTED: &str = "$SYS.DISCONNECTED";
/// The header that has the client's number, in decimal: no other client of its server ever has it.
pub const HEADER_CLIENT: &str = "Client";
/// The header that says how a connection broke, for people.
pub const HEADER_BROKEN: &str = "Broken";

impl Broker {
    /// A client of a server has been welcomed. Without memory nobody is told of it, nor of its end.
    pub(crate) fn connected(&self, server: u64, client: u64, name: &[u8]) {
        let mut listeners = lock(&self.presence.listeners);
        let Ok(name) = try_bytes(name) else { return };
        if listeners.connections.try_reserve(1).is_err() {
            return;
        }
        let is_told = self.tell(&mut listeners, &notice(SUBJECT_CONNECTED, client, &name));
        listeners.connections.insert((server, client), name);
        drop(listeners);
        if is_told {
            self.presence.wake(self);
        }
    }

    /// It has gone; `broken`: how, if it has not said goodbye.
    pub(crate) fn disconnected(&self, server: u64, client: u64, broken: Option<&str>) {
        let mut listeners = lock(&self.presence.listeners);
        let Some(name) = listeners.connections.remove(&(server, client)) else {
            return;
        };
        if listeners.connections.is_empty() {
            listeners.connections = Default::default();
        }
        let mut notice = notice(SUBJECT_DISCONNECTED, client, &name);
        if let Some(why) = broken {
            notice.add_header(HEADER_BROKEN, why.as_bytes());
        }
        let is_told = self.tell(&mut listeners, &notice);
        drop(listeners);
        if is_told {
            self.presence.wake(self);
        }
    }
}

/// What is told of a client.
pub(crate) fn notice<'a>(base: &str, client: u64, name: &'a [u8]) -> Notice<'a> {
    Notice::new(base, (HEADER_CLIENT, client), name, &[])
}
