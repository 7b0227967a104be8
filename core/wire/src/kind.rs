//! Kinds of frames, and who takes which in which state (`docs/protocol.md` §1 and §9).

use crate::fault::Fault;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// A publish, or its delivery.
    Message = 1,
    /// A message that expects answers.
    Request = 2,
    /// An answer.
    Reply = 3,
    /// The first frame of a client.
    Hello = 16,
    /// The first frame of a server.
    Welcome = 17,
    /// A challenge or proof; reserved.
    Auth = 18,
    /// An operation, or the connection, has failed.
    Error = 19,
    /// Something has happened.
    Event = 20,
    /// An operation has been carried out.
    Ack = 21,
    /// Begin a subscription.
    Subscribe = 22,
    /// End a subscription.
    Unsubscribe = 23,
    /// A number for a subject.
    Alias = 24,
    /// How much may be sent.
    Credit = 25,
    /// More replies for streams.
    Grant = 26,
    /// A request has no asker any more.
    Cancel = 27,
    /// Are you there?
    Ping = 28,
    /// I am.
    Pong = 29,
    /// Finish what is under way.
    Drain = 30,
    /// The last frame of its side.
    Close = 31,
    /// Tell who is there.
    Presence = 32,
    /// A part of a large frame; reserved.
    Fragment = 33,
}

/// From here to [`SKIPPED_LAST`], what is not known is skipped.
pub(crate) const SKIPPED_FIRST: u8 = 64;
/// The last kind that is skipped when it is not known.
pub(crate) const SKIPPED_LAST: u8 = 127;

impl Kind {
    /// The kind with this number, if this version has one.
    pub const fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Message,
            2 => Self::Request,
            3 => Self::Reply,
            16 => Self::Hello,
            17 => Self::Welcome,
            18 => Self::Auth,
            19 => Self::Error,
            20 => Self::Event,
            21 => Self::Ack,
            22 => Self::Subscribe,
            23 => Self::Unsubscribe,
            24 => Self::Alias,
            25 => Self::Credit,
            26 => Self::Grant,
            27 => Self::Cancel,
            28 => Self::Ping,
            29 => Self::Pong,
            30 => Self::Drain,
            31 => Self::Close,
            32 => Self::Presence,
            33 => Self::Fragment,
            _ => return None,
        })
    }

    /// Whether this is one of MESSAGE, REQUEST and REPLY.
    pub const fn is_message(self) -> bool {
        (self as u8) < 4
    }

    /// Its name in the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message => "MESSAGE",
            Self::Request => "REQUEST",
            Self::Reply => "REPLY",
            Self::Hello => "HELLO",
            Self::Welcome => "WELCOME",
            Self::Auth => "AUTH",
            Self::Error => "ERROR",
            Self::Event => "EVENT",
            Self::Ack => "ACK",
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Alias => "ALIAS",
            Self::Credit => "CREDIT",
            Self::Grant => "GRANT",
            Self::Cancel => "CANCEL",
            Self::Ping => "PING",
            Self::Pong => "PONG",
            Self::Drain => "DRAIN",
            Self::Close => "CLOSE",
            Self::Presence => "PRESENCE",
            Self::Fragment => "FRAGMENT",
        }
    }
}

/// Which side of a connection receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It was connected to.
    Server,
    /// It has connected.
    Client,
}

impl Side {
    /// Whether a ready connection takes this kind on this side.
    pub const fn takes(self, kind: Kind) -> bool {
        match kind {
            Kind::Message | Kind::Request | Kind::Reply => true,
            Kind::Error | Kind::Alias | Kind::Credit | Kind::Grant | Kind::Cancel => true,
            Kind::Ping | Kind::Pong | Kind::Drain | Kind::Close => true,
            Kind::Subscribe | Kind::Unsubscribe | Kind::Presence => matches!(self, Self::Server),
            Kind::Event | Kind::Ack => matches!(self, Self::Client),
            Kind::Hello | Kind::Welcome | Kind::Auth | Kind::Fragment => false,
        }
    }
}

/// Where a connection is in its life; the same for both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The handshake is not over.
    #[default]
    Waiting,
    /// Frames go both ways.
    Ready,
    /// This side has sent CLOSE or a fatal ERROR: what comes is dropped.
    Ending,
    /// There is no connection any more.
    Ended,
}

impl State {
    /// The handshake has ended with a WELCOME.
    pub fn welcomed(&mut self) -> Result<(), Fault> {
        if *self != Self::Waiting {
            return Err(Fault::State(Kind::Welcome));
        }
        *self = Self::Ready;
        Ok(())
    }

    /// This side has sent CLOSE or a fatal ERROR.
    pub fn said_goodbye(&mut self) {
        if *self != Self::Ended {
            *self = Self::Ending;
        }
    }

    /// The other side has sent CLOSE or a fatal ERROR. Says whether a CLOSE is to be sent before
    /// the connection is ended.
    #[must_use]
    pub fn heard_goodbye(&mut self) -> bool {
        let is_owed = *self == Self::Ready;
        *self = Self::Ended;
        is_owed
    }

    /// The bytes of the other side have ended. Says whether that was clean.
    #[must_use]
    pub fn heard_nothing_more(&mut self) -> bool {
        let is_clean = matches!(self, Self::Ending | Self::Ended);
        *self = Self::Ended;
        is_clean
    }

    /// Whether received frames are looked at.
    #[inline]
    pub const fn is_listening(self) -> bool {
        matches!(self, Self::Waiting | Self::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_its_number() {
        let mut count = 0;
        for number in 0..=u8::MAX {
            if let Some(kind) = Kind::of(number) {
                assert_eq!(kind as u8, number);
                assert!(!kind.name().is_empty());
                assert_eq!(kind.is_message(), number <= 3);
                count += 1;
            }
        }
        assert_eq!(count, 21);
    }

    #[test]
    fn a_clean_end_is_a_close_from_both_sides() {
        let mut server = State::default();
        assert!(server.is_listening());
        server.welcomed().unwrap();
        assert_eq!(server.welcomed(), Err(Fault::State(Kind::Welcome)));
        let mut client = server;
        client.said_goodbye();
        assert!(!client.is_listening());
        assert!(server.heard_goodbye(), "it owes the answer");
        assert!(!client.heard_goodbye(), "it has said it already");
        assert_eq!((client, server), (State::Ended, State::Ended));
        assert!(client.heard_nothing_more());
    }

    #[test]
    fn an_end_without_close_is_broken() {
        for mut state in [State::Waiting, State::Ready] {
            assert!(!state.heard_nothing_more());
            assert_eq!(state, State::Ended);
            state.said_goodbye();
            assert_eq!(state, State::Ended, "nothing comes after the end");
        }
    }
}
