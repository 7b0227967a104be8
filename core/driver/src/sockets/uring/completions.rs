//! What the completions of a ring mean: the receiving half of the `uring` tier.
//!
//! Each request that ends is made again if it is still wanted: a multishot request ends when its
//! buffers are all full, when the completion queue is, or for no reason. A connection that is
//! closing only waits for the last of its requests.

use std::io;
use std::mem;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;

use super::super::accepting::{Remedy, remedy};
use super::super::buffers::Part;
use super::super::ring::{Kind, Token};
use super::super::slots::Key;
use super::super::socket::{self, Socket};
use super::super::{Completion, ConnectionId, ListenerId};
use super::{Step, UringSockets};

impl UringSockets {
    pub(super) fn step(&mut self) -> Option<Step> {
        loop {
            if let Some((id, count)) = self.behind_descriptors.take() {
                return Some(Step::Read(id, count));
            }
            if let Some(done) = self.done.pop_front() {
                return Some(Step::Other(done));
            }
            let completion = self.ring.next()?;
            let (kind, key) = Token::unpack(completion.user_data());
            let step = match kind {
                Kind::Receive => self.on_receive(key, &completion),
                Kind::Send => self.on_send(key, completion.result()),
                Kind::Accept => self.on_accept(key, &completion),
                Kind::Connect => self.on_connect(key),
                Kind::Waker => {
                    let done = &mut self.done;
                    self.watches.take(|signalled| done.push_back(signalled));
                    self.arm_waker();
                    None
                }
                Kind::Cancel => None,
            };
            if step.is_some() {
                return step;
            }
        }
    }

    fn on_receive(&mut self, key: Key, completion: &cqueue::Entry) -> Option<Step> {
        let (result, flags) = (completion.result(), completion.flags());
        let count = usize::try_from(result).unwrap_or(0);
        let connection = self
            .connections
            .get_mut(key)
            .expect("a place is kept while requests are in flight");
        if !cqueue::more(flags) {
            connection.receives_in_flight -= 1;
            connection.in_flight -= 1;
        }
        let takes_descriptors = connection.options.takes_descriptors;
        let is_closing = connection.is_closing;
        // A poll's result is no count.
        let part = match takes_descriptors {
            false => self.buffers.take(flags, count),
            true => None,
        };
        let id = ConnectionId(key);
        let step = if is_closing {
            if let Some(part) = part {
                self.buffers.give_back(part);
            }
            self.end(key);
            None
        } else if takes_descriptors {
            self.receive_descriptors(id, result)
        } else {
            self.received(id, result, part)
        };
        self.arm_receive(key);
        step
    }

    fn received(&mut self, id: ConnectionId, result: i32, part: Option<Part>) -> Option<Step> {
        if result > 0 {
            let part = part.expect("a receive with bytes names its buffer");
            return Some(Step::Received(id, part));
        }
        if let Some(part) = part {
            self.buffers.give_back(part);
        }
        match -result {
            // All buffers are full of what was received before, or a signal, or the thread that
            // asked has ended, or `set_receiving` has cancelled: asked again if it is wanted.
            libc::ENOBUFS | libc::EINTR | libc::EAGAIN | libc::ECANCELED => None,
            code => Some(self.ended(id, code)),
        }
    }

    /// A connection that takes descriptors is readable.
    fn receive_descriptors(&mut self, id: ConnectionId, result: i32) -> Option<Step> {
        let connection = self.connections.get_mut(id.0)?;
        if result == -libc::ECANCELED || !connection.is_receiving {
            return None;
        }
        let mut descriptors = Vec::new();
        match socket::receive_descriptors(&connection.fd, &mut self.buffer, &mut descriptors) {
            Ok(0) => Some(self.ended(id, 0)),
            Ok(count) if descriptors.is_empty() => Some(Step::Read(id, count)),
            Ok(count) => {
                self.behind_descriptors = Some((id, count));
                let connection = id;
                Some(Step::Other(Completion::Descriptors {
                    connection,
                    descriptors,
                }))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(self.ended(id, error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    fn ended(&mut self, id: ConnectionId, code: i32) -> Step {
        if let Some(connection) = self.connections.get_mut(id.0) {
            connection.has_ended = true;
        }
        let error = (code != 0).then(|| io::Error::from_raw_os_error(code));
        let connection = id;
        Step::Other(Completion::Ended { connection, error })
    }

    fn on_send(&mut self, key: Key, result: i32) -> Option<Step> {
        let connection = self
            .connections
            .get_mut(key)
            .expect("a place is kept while requests are in flight");
        connection.in_flight -= 1;
        if connection.is_closing {
            self.end(key);
            return None;
        }
        let outgoing = connection.sending.as_mut()?;
        let result = match usize::try_from(result) {
            Ok(count) => {
                outgoing.sent += count;
                Ok(())
            }
            Err(_) => match -result {
                libc::EINTR | libc::EAGAIN | libc::ECANCELED => Ok(()),
                code => Err(io::Error::from_raw_os_error(code)),
            },
        };
        if result.is_ok() && outgoing.sent < outgoing.bytes.len() {
            self.arm_send(key);
            return None;
        }
        let mut buffer = mem::take(&mut outgoing.bytes);
        buffer.clear();
        connection.sending = None;
        Some(Step::Other(Completion::Sent {
            connection: ConnectionId(key),
            buffer,
            result,
        }))
    }

    fn on_accept(&mut self, key: Key, completion: &cqueue::Entry) -> Option<Step> {
        let listener = self
            .listeners
            .get_mut(key)
            .expect("a place is kept while requests are in flight");
        if !cqueue::more(completion.flags()) {
            listener.is_armed = false;
        }
        let result = completion.result();
        let is_closing = listener.is_closing;
        let id = ListenerId(key);
        let step = if result >= 0 {
            // SAFETY: the kernel has just made this descriptor for us.
            let fd = unsafe { OwnedFd::from_raw_fd(result) };
            socket::set_no_delay(&fd);
            (!is_closing).then(|| Completion::Accepted {
                listener: id,
                socket: Socket::from_fd(fd),
            })
        } else {
            let error = io::Error::from_raw_os_error(-result);
            let must_rest = !is_closing && remedy(&error) == Remedy::Pause;
            must_rest.then(|| {
                listener.is_resting = true;
                self.pause.start();
                let listener = id;
                Completion::AcceptPaused { listener, error }
            })
        };
        if is_closing {
            self.end_listener(key);
        } else {
            self.arm_accept(key);
        }
        step.map(Step::Other)
    }

    fn on_connect(&mut self, key: Key) -> Option<Step> {
        let connection = self
            .connections
            .get_mut(key)
            .expect("a place is kept while requests are in flight");
        connection.in_flight -= 1;
        if connection.is_closing {
            self.end(key);
            return None;
        }
        connection.is_connecting = false;
        let mut result = socket::take_error(&connection.fd);
        if result.is_ok() {
            result = socket::set_blocking(&connection.fd, true);
        }
        if result.is_err() {
            connection.has_ended = true;
        }
        self.arm_receive(key);
        let connection = ConnectionId(key);
        Some(Step::Other(Completion::Connected { connection, result }))
    }

    /// Gives the place of a connection back if the kernel has let go of it.
    pub(super) fn end(&mut self, key: Key) {
        let in_flight = self.connections.get(key).map(|it| it.in_flight);
        if in_flight == Some(0) {
            self.connections.remove(key);
            self.pause.cut_short();
            let connection = ConnectionId(key);
            self.done.push_back(Completion::Closed { connection });
        }
    }

    pub(super) fn end_listener(&mut self, key: Key) {
        let is_armed = self.listeners.get(key).map(|it| it.is_armed);
        if is_armed == Some(false) {
            self.listeners.remove(key);
            let listener = ListenerId(key);
            self.done.push_back(Completion::ListenerClosed { listener });
        }
    }
}
