//! HELLO and WELCOME, and what two sides agree on (`docs/protocol.md` §4).
//!
//! Client: write a [`Hello`], give what comes to [`read_welcome`], then [`Agreement::of_client`].
//! Server: give what comes to [`read_hello`], look at the token, write a [`Welcome`].

use crate::control::{Control, ControlDraft, MAGIC};
use crate::fault::Fault;
use crate::field::{FRAME_BYTES_MIN, Field};
use crate::frames::first_frame;
use crate::kind::{Kind, Side};
use crate::{CREDIT_DEFAULT, FRAME_BYTES_DEFAULT, NoMemory, PING_NS_DEFAULT, VERSION};

/// Bits of CAPABILITIES.
pub mod capability {
    /// A publish may be answered.
    pub const ACK: u64 = 1 << 0;
    /// Several answers and reply streams.
    pub const MANY: u64 = 1 << 1;
    /// Who is there.
    pub const PRESENCE: u64 = 1 << 2;
    /// Groups that keep the order of a key.
    pub const KEY_SHARED: u64 = 1 << 3;
    /// Subscriptions that get the newest message of each subject.
    pub const LATEST: u64 = 1 << 4;
    /// Subscriptions that begin with the newest message of each subject.
    pub const LAST_VALUE: u64 = 1 << 5;
    /// Rings in shared memory.
    pub const SHM: u64 = 1 << 6;
    /// All that this version has.
    pub const ALL: u64 = 0x7f;
}

/// What a side takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame; at least 8,192 and, since credit counts what a frame occupies, a multiple of
    /// 8. What another side says is rounded down to one: a credit of just its FRAME_MAX is enough.
    pub frame_max: u32,
    /// Bytes of messages before more is granted; at least `frame_max`.
    pub credit: u64,
    /// Aliases that it keeps.
    pub alias_max: u32,
    /// Sum of their subjects' sizes.
    pub alias_bytes_max: u64,
    /// Silence after which it sends a PING; 0: never.
    pub ping_ns: u64,
}

impl Default for Limits {
    /// What holds for a side that says nothing.
    fn default() -> Self {
        Self {
            frame_max: FRAME_BYTES_DEFAULT as u32,
            credit: CREDIT_DEFAULT,
            alias_max: 0,
            alias_bytes_max: 0,
            ping_ns: PING_NS_DEFAULT,
        }
    }
}

impl Limits {
    fn read(frame: &Control<'_>) -> Result<Self, Fault> {
        let number = |field, default| frame.number(field).unwrap_or(default);
        let small = |field| u32::try_from(number(field, 0)).unwrap_or(u32::MAX);
        let frame_max = number(Field::FrameMax, FRAME_BYTES_DEFAULT);
        let credit = number(Field::Credit, CREDIT_DEFAULT);
        if credit < frame_max {
            let (id, value) = (Field::Credit as u16, credit);
            return Err(Fault::FieldValue { id, value });
        }
        Ok(Self {
            // A length has 32 bits, and its rounding fits too.
            frame_max: u32::try_from(frame_max).unwrap_or(u32::MAX).min(1 << 31) & !7,
            credit,
            alias_max: small(Field::AliasMax),
            alias_bytes_max: number(Field::AliasBytesMax, 0),
            ping_ns: number(Field::PingNs, PING_NS_DEFAULT),
        })
    }

    fn write<'b>(&self, draft: ControlDraft<'b>) -> Result<ControlDraft<'b>, NoMemory> {
        debug_assert!(
            u64::from(self.frame_max) >= FRAME_BYTES_MIN && self.frame_max.is_multiple_of(8)
        );
        debug_assert!(self.credit >= u64::from(self.frame_max));
        draft
            .number(Field::FrameMax, u64::from(self.frame_max))?
            .number(Field::Credit, self.credit)?
            .number(Field::AliasMax, u64::from(self.alias_max))?
            .number(Field::AliasBytesMax, self.alias_bytes_max)?
            .number(Field::PingNs, self.ping_ns)
    }
}

/// What a client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Lowest and highest version that it has.
    pub versions: (u32, u32),
    /// What it can: [`capability`] bits.
    pub capabilities: u64,
    /// Without which of them it does not want to go on.
    pub required: u64,
    /// Its name; at most 255 bytes of text.
    pub name: &'a [u8],
    /// Its secret; at most 4,096 bytes. Empty: none.
    pub token: &'a [u8],
    /// What it takes.
    pub limits: Limits,
}

impl Hello<'_> {
    /// Appends the HELLO.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), NoMemory> {
        let (min, max) = self.versions;
        let mut draft = ControlDraft::whole(out, Kind::Hello, MAGIC)?
            .number(Field::Versions, u64::from(min) | u64::from(max) << 32)?
            .number(Field::Capabilities, self.capabilities)?
            .number(Field::Required, self.required)?;
        for (field, bytes) in [(Field::Name, self.name), (Field::Token, self.token)] {
            if !bytes.is_empty() {
                draft = draft.bytes(field, bytes)?;
            }
        }
        self.limits.write(draft)?;
        Ok(())
    }

    /// Whether the token is `secret`, in a time that depends on their sizes only.
    pub fn has_token(&self, secret: &[u8]) -> bool {
        let pairs = self.token.iter().zip(secret);
        let differs = pairs.fold(0, |differs, (a, b)| differs | (a ^ b));
        self.token.len() == secret.len() && std::hint::black_box(differs) == 0
    }
}

/// The HELLO at the front of what a server has received, and the bytes that it occupies; `None`:
/// not all of it is there. Refused if it has no version or capability in common with ours.
pub fn read_hello(bytes: &[u8], capabilities: u64) -> Result<Option<(Hello<'_>, usize)>, Fault> {
    let Some((frame, size)) = first_frame(bytes, Side::Server)? else {
        return Ok(None);
    };
    let versions = frame.number(Field::Versions).unwrap_or(0);
    let (min, max) = (versions as u32, (versions >> 32) as u32);
    if !(min..=max).contains(&VERSION) {
        return Err(Fault::Version { min, max });
    }
    let required = frame.number(Field::Required).unwrap_or(0);
    if required & !capabilities != 0 {
        return Err(Fault::Capability(required & !capabilities));
    }
    let hello = Hello {
        versions: (min, max),
        capabilities: frame.number(Field::Capabilities).unwrap_or(0),
        required,
        name: frame.bytes(Field::Name).unwrap_or_default(),
        token: frame.bytes(Field::Token).unwrap_or_default(),
        limits: Limits::read(&frame)?,
    };
    Ok(Some((hello, size)))
}

/// What a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// The version that both have.
    pub version: u32,
    /// What both can: [`capability`] bits.
    pub capabilities: u64,
    /// The server's name; at most 255 bytes of text.
    pub name: &'a [u8],
    /// The connection's number.
    pub client: u64,
    /// Which run of the server this is.
    pub instance: u64,
    /// Largest payload; 0: not said.
    pub payload_max: u64,
    /// Subscriptions of this connection; 0: not said.
    pub subscriptions_max: u64,
    /// Where else to connect: URLs with commas between them, at most 4,096 bytes.
    pub servers: &'a [u8],
    /// Capacities of the rings to the server and to the client.
    pub rings: Option<(u64, u64)>,
    /// What it takes.
    pub limits: Limits,
}

impl Welcome<'_> {
    /// Appends the WELCOME.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), NoMemory> {
        let mut draft = ControlDraft::whole(out, Kind::Welcome, MAGIC)?
            .number(Field::Version, u64::from(self.version))?
            .number(Field::Capabilities, self.capabilities)?
            .number(Field::Client, self.client)?
            .number(Field::Instance, self.instance)?
            .number(Field::PayloadMax, self.payload_max)?
            .number(Field::SubscriptionsMax, self.subscriptions_max)?;
        for (field, bytes) in [(Field::Name, self.name), (Field::Servers, self.servers)] {
            if !bytes.is_empty() {
                draft = draft.bytes(field, bytes)?;
            }
        }
        if let Some((to_server, to_client)) = self.rings {
            let both = u128::from(to_server) | u128::from(to_client) << 64;
            draft = draft.bytes(Field::Rings, &both.to_le_bytes())?;
        }
        self.limits.write(draft)?;
        Ok(())
    }
}

/// What the server has answered to a HELLO.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// The connection is ready.
    Welcome(Welcome<'a>),
    /// It was refused: an ERROR frame.
    Refused(Control<'a>),
}

/// The answer at the front of what a client has received, and the bytes that it occupies; `None`:
/// not all of it is there.
pub fn read_welcome(bytes: &[u8]) -> Result<Option<(Answer<'_>, usize)>, Fault> {
    let Some((frame, size)) = first_frame(bytes, Side::Client)? else {
        return Ok(None);
    };
    if frame.kind() == Kind::Error {
        return Ok(Some((Answer::Refused(frame), size)));
    }
    let number = |field| frame.number(field).unwrap_or(0);
    let version = number(Field::Version);
    if version != u64::from(VERSION) {
        let version = u32::try_from(version).unwrap_or(u32::MAX);
        let (min, max) = (version, version);
        return Err(Fault::Version { min, max });
    }
    let rings = frame.bytes(Field::Rings).and_then(|rings| {
        let both = u128::from_le_bytes(*rings.first_chunk()?);
        Some((both as u64, (both >> 64) as u64))
    });
    let welcome = Welcome {
        version: VERSION,
        capabilities: number(Field::Capabilities),
        name: frame.bytes(Field::Name).unwrap_or_default(),
        client: number(Field::Client),
        instance: number(Field::Instance),
        payload_max: number(Field::PayloadMax),
        subscriptions_max: number(Field::SubscriptionsMax),
        servers: frame.bytes(Field::Servers).unwrap_or_default(),
        rings,
        limits: Limits::read(&frame)?,
    };
    Ok(Some((Answer::Welcome(welcome), size)))
}

/// What holds for a connection from its WELCOME on, seen from one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The version.
    pub version: u32,
    /// What both sides can.
    pub capabilities: u64,
    /// What this side takes.
    pub ours: Limits,
    /// What the other side takes.
    pub theirs: Limits,
}

impl Agreement {
    /// For the client that has said `hello`.
    pub fn of_client(hello: &Hello<'_>, welcome: &Welcome<'_>) -> Self {
        Self {
            version: welcome.version,
            capabilities: hello.capabilities & welcome.capabilities,
            ours: hello.limits,
            theirs: welcome.limits,
        }
    }

    /// For the server that says `welcome`.
    pub fn of_server(hello: &Hello<'_>, welcome: &Welcome<'_>) -> Self {
        Self {
            version: welcome.version,
            capabilities: hello.capabilities & welcome.capabilities,
            ours: welcome.limits,
            theirs: hello.limits,
        }
    }

    /// Whether both sides can all of `capabilities`.
    pub fn has(&self, capabilities: u64) -> bool {
        self.capabilities & capabilities == capabilities
    }

    /// Silence after which the other side is given up; `None`: never, as nobody sends PINGs.
    pub fn silence_ns_max(&self) -> Option<u64> {
        let longest = self.ours.ping_ns.max(self.theirs.ping_ns);
        let least = 10_000_000_000;
        (longest > 0).then(|| longest.saturating_mul(2).max(least))
    }
}
