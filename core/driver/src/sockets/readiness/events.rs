//! What readiness comes to: the calls that a ready socket is worth.
//!
//! An event may be worth several completions (a descriptor with bytes, a send and a receive, many
//! accepts); what is left of it waits in `current`, so that each is handed out by itself.

use std::io;
use std::mem;

use super::super::accepting::{Remedy, remedy};
use super::super::slots::Key;
use super::super::socket::{self, Socket};
use super::super::{Completion, ConnectionId, ListenerId};
use super::{
    CONNECTION, Connection, Event, LISTENER, Poller, ReadinessSockets, Step, WAKER, waker_key,
};

impl<P: Poller> ReadinessSockets<P> {
    pub(super) fn step(&mut self) -> Option<Step> {
        loop {
            if let Some((id, count)) = self.read.take() {
                return Some(Step::Received(id, count));
            }
            if let Some(done) = self.done.pop_front() {
                return Some(Step::Other(done));
            }
            let event = self.current.take().or_else(|| self.poller.next())?;
            let (kind, key) = Key::unpack(event.token);
            let step = match kind {
                CONNECTION => self.on_connection(key, event),
                LISTENER => self.on_listener(key, event),
                _ => {
                    self.on_waker(event);
                    None
                }
            };
            if step.is_some() {
                return step;
            }
        }
    }

    fn on_waker(&mut self, event: Event) {
        self.waker_watch.armed &= !event.fired;
        let done = &mut self.done;
        self.watches.take(|signalled| done.push_back(signalled));
        let (fd, token) = (self.watches.fd(), waker_key().pack(WAKER));
        // It watches what it has watched before, which asks for no memory.
        let _ = self.poller.watch(fd, token, &mut self.waker_watch);
    }

    fn on_listener(&mut self, key: Key, event: Event) -> Option<Step> {
        let listener = self.listeners.get_mut(key)?;
        listener.watch.armed &= !event.fired;
        if listener.is_closing {
            self.end_listener(key);
            return None;
        }
        let mut found = None;
        if event.reads && self.accepts_left > 0 {
            self.accepts_left -= 1;
            found = match socket::accept(&listener.fd) {
                Ok(fd) => {
                    socket::set_no_delay(&fd);
                    self.current = Some(Event { fired: 0, ..event });
                    Some(Completion::Accepted {
                        listener: ListenerId(key),
                        socket: Socket::from_fd(fd),
                    })
                }
                Err(error) => match remedy(&error) {
                    Remedy::None => None,
                    Remedy::Again => {
                        self.current = Some(Event { fired: 0, ..event });
                        None
                    }
                    Remedy::Pause => {
                        listener.is_resting = true;
                        self.pause.start();
                        let listener = ListenerId(key);
                        Some(Completion::AcceptPaused { listener, error })
                    }
                },
            };
        }
        if self.current.is_none() {
            // It watches less, or what it has watched before.
            let _ = self.rewatch_listener(key);
        }
        found.map(Step::Other)
    }

    fn on_connection(&mut self, key: Key, event: Event) -> Option<Step> {
        let connection = self.connections.get_mut(key)?;
        connection.watch.armed &= !event.fired;
        if connection.is_closing {
            self.end(key);
            return None;
        }
        let id = ConnectionId(key);
        let step = if connection.is_connecting {
            let result = (event.reads || event.writes).then(|| {
                connection.is_connecting = false;
                let result = socket::take_error(&connection.fd);
                connection.has_ended = result.is_err();
                result
            });
            result.map(|result| {
                let connection = id;
                Step::Other(Completion::Connected { connection, result })
            })
        } else if event.writes && connection.sending.is_some() {
            self.current = event.reads.then_some(Event {
                writes: false,
                fired: 0,
                ..event
            });
            Self::on_writable(id, connection)
        } else if event.reads && connection.watch.reads {
            self.on_readable(id)
        } else {
            None
        };
        // It watches less, or what it has watched before.
        let _ = self.rewatch(key);
        step
    }

    fn on_writable(id: ConnectionId, connection: &mut Connection) -> Option<Step> {
        let outgoing = connection.sending.as_mut()?;
        let result = match socket::send(&connection.fd, &outgoing.bytes[outgoing.sent..]) {
            Ok(count) => {
                outgoing.sent += count;
                if outgoing.sent < outgoing.bytes.len() {
                    return None;
                }
                Ok(())
            }
            Err(error) => Err(error),
        };
        let mut buffer = mem::take(&mut outgoing.bytes);
        buffer.clear();
        connection.sending = None;
        Some(Step::Other(Completion::Sent {
            connection: id,
            buffer,
            result,
        }))
    }

    fn on_readable(&mut self, id: ConnectionId) -> Option<Step> {
        let connection = self.connections.get_mut(id.0)?;
        let mut descriptors = Vec::new();
        let result = match connection.options.takes_descriptors {
            false => socket::receive(&connection.fd, &mut self.buffer),
            true => {
                let fd = &connection.fd;
                socket::receive_descriptors(fd, &mut self.buffer, &mut descriptors)
            }
        };
        let error = match result {
            Ok(0) => None,
            Ok(count) if descriptors.is_empty() => return Some(Step::Received(id, count)),
            Ok(count) => {
                self.read = Some((id, count));
                let connection = id;
                return Some(Step::Other(Completion::Descriptors {
                    connection,
                    descriptors,
                }));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) => Some(error),
        };
        connection.has_ended = true;
        let connection = id;
        Some(Step::Other(Completion::Ended { connection, error }))
    }

    /// Gives the place of a connection back if the poller has let go of it.
    pub(super) fn end(&mut self, key: Key) {
        let armed = self.connections.get(key).map(|it| it.watch.armed);
        if armed == Some(0) {
            self.connections.remove(key);
            self.pause.cut_short();
            let connection = ConnectionId(key);
            self.done.push_back(Completion::Closed { connection });
        }
    }

    pub(super) fn end_listener(&mut self, key: Key) {
        let armed = self.listeners.get(key).map(|it| it.watch.armed);
        if armed == Some(0) {
            self.listeners.remove(key);
            let listener = ListenerId(key);
            self.done.push_back(Completion::ListenerClosed { listener });
        }
    }
}
