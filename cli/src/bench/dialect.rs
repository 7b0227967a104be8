//! What other servers speak, as far as a comparison needs it: publish, subscribe, be told.
//!
//! NATS (its text protocol), Redis (RESP 2) and MQTT 3.1.1 at QoS 0. One connection publishes, one
//! listens; where a server lets one do both it may be the same. Not here: anything else of them.

use std::io;

use super::plan::Protocol;

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    Message {
        /// Where the answer goes, if the protocol says so.
        reply_to: &'a [u8],
        payload: &'a [u8],
    },
    /// A hello or a subscription is done.
    Ready,
    /// It wants to be answered ([`pong`]).
    Ping,
    /// Nothing of interest.
    Nothing,
}

/// One thing of the front of `bytes` and how long it is; `None`: not all of it is there.
type Next<'a> = io::Result<Option<(Heard<'a>, usize)>>;

fn wrong(line: &[u8]) -> io::Error {
    let line = String::from_utf8_lossy(line.get(..line.len().min(80)).unwrap_or_default());
    io::Error::other(format!("the server says `{}`", line.trim_end()))
}

/// Appends what a connection says first.
pub(super) fn hello(protocol: Protocol, out: &mut Vec<u8>, number: usize) {
    match protocol {
        Protocol::Fastmq => {}
        Protocol::Nats => out.extend_from_slice(
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false}\r\nPING\r\n",
        ),
        Protocol::Redis => out.extend_from_slice(b"*1\r\n$4\r\nPING\r\n"),
        Protocol::Mqtt => {
            // Every client has a name of its own; a clean session, no time-out.
            let name = format!("bench-{}-{number}", std::process::id());
            packet(out, 0x10, 10 + 2 + name.len());
            out.extend_from_slice(b"\x00\x04MQTT\x04\x02\x00\x00");
            text(out, name.as_bytes());
        }
    }
}

/// Appends a subscription.
pub(super) fn subscribe(protocol: Protocol, out: &mut Vec<u8>, topic: &str) {
    match protocol {
        Protocol::Fastmq => {}
        Protocol::Nats => {
            out.extend_from_slice(format!("SUB {topic} 1\r\nPING\r\n").as_bytes());
        }
        Protocol::Redis => {
            let size = topic.len();
            let line = format!("*2\r\n$9\r\nSUBSCRIBE\r\n${size}\r\n{topic}\r\n");
            out.extend_from_slice(line.as_bytes());
        }
        Protocol::Mqtt => {
            packet(out, 0x82, 2 + 2 + topic.len() + 1);
            out.extend_from_slice(&[0, 1]);
            text(out, topic.as_bytes());
            out.push(0);
        }
    }
}

/// What stands before and behind the payload of a publish, made once for all of a size.
#[derive(Clone, Debug, Default)]
pub(super) struct Envelope {
    front: Vec<u8>,
    back: &'static [u8],
}

impl Envelope {
    pub(super) fn new(protocol: Protocol, topic: &[u8], reply_to: &str, size: usize) -> Self {
        let mut front = Vec::new();
        let back: &[u8] = match protocol {
            Protocol::Fastmq => b"",
            Protocol::Nats => {
                front.extend_from_slice(b"PUB ");
                front.extend_from_slice(topic);
                if !reply_to.is_empty() {
                    front.push(b' ');
                    front.extend_from_slice(reply_to.as_bytes());
                }
                front.extend_from_slice(format!(" {size}\r\n").as_bytes());
                b"\r\n"
            }
            Protocol::Redis => {
                let length = topic.len();
                front.extend_from_slice(format!("*3\r\n$7\r\nPUBLISH\r\n${length}\r\n").as_bytes());
                front.extend_from_slice(topic);
                front.extend_from_slice(format!("\r\n${size}\r\n").as_bytes());
                b"\r\n"
            }
            Protocol::Mqtt => {
                packet(&mut front, 0x30, 2 + topic.len() + size);
                text(&mut front, topic);
                b""
            }
        };
        Self { front, back }
    }

    /// Appends a publish.
    #[inline(always)]
    pub(super) fn put(&self, out: &mut Vec<u8>, payload: &[u8]) {
        out.extend_from_slice(&self.front);
        out.extend_from_slice(payload);
        out.extend_from_slice(self.back);
    }
}

/// Appends the answer to a [`Heard::Ping`].
pub(super) fn pong(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PONG\r\n");
}

/// The first thing of what has come.
#[inline(always)]
pub(super) fn next(protocol: Protocol, bytes: &[u8]) -> Next<'_> {
    match protocol {
        Protocol::Fastmq => Ok(None),
        Protocol::Nats => nats(bytes),
        Protocol::Redis => redis(bytes),
        Protocol::Mqtt => mqtt(bytes),
    }
}

/// A line without its end, and what is behind it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let line = bytes.get(..end)?;
    Some((
        line.strip_suffix(b"\r").unwrap_or(line),
        bytes.get(end + 1..)?,
    ))
}

fn decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0usize, |number, &digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| number.checked_mul(10)?.checked_add(digit.into()))?
    })
}

fn nats(bytes: &[u8]) -> Next<'_> {
    let Some((head, rest)) = line(bytes) else {
        return Ok(None);
    };
    let head_size = bytes.len() - rest.len();
    let heard = match head.first() {
        Some(b'M') => {
            // MSG subject sid [reply-to] size
            let mut words = head.split(|&byte| byte == b' ').skip(3);
            let (reply_to, digits) = match (words.next(), words.next()) {
                (Some(reply_to), Some(digits)) => (reply_to, digits),
                (Some(digits), None) => (&b""[..], digits),
                _ => return Err(wrong(head)),
            };
            let size = decimal(digits).ok_or_else(|| wrong(head))?;
            if rest.len() < size + 2 {
                return Ok(None);
            }
            let payload = &rest[..size];
            return Ok(Some((
                Heard::Message { reply_to, payload },
                head_size + size + 2,
            )));
        }
        _ if head == b"PING" => Heard::Ping,
        _ if head == b"PONG" => Heard::Ready,
        Some(b'I' | b'+') => Heard::Nothing,
        _ => return Err(wrong(head)),
    };
    Ok(Some((heard, head_size)))
}

fn redis(bytes: &[u8]) -> Next<'_> {
    let Some((head, mut rest)) = line(bytes) else {
        return Ok(None);
    };
    let heard = match head.split_first() {
        Some((b':', _)) => Heard::Nothing,
        Some((b'+', _)) => Heard::Ready,
        Some((b'*', b"3")) => {
            let mut parts = [&b""[..]; 3];
            for part in &mut parts {
                let Some((size, behind)) = line(rest) else {
                    return Ok(None);
                };
                rest = behind;
                let Some((b'$', digits)) = size.split_first() else {
                    // A subscription is answered by its number.
                    *part = size;
                    continue;
                };
                let size = decimal(digits).ok_or_else(|| wrong(head))?;
                if rest.len() < size + 2 {
                    return Ok(None);
                }
                (*part, rest) = (&rest[..size], &rest[size + 2..]);
            }
            match parts {
                [b"message", _, payload] => Heard::Message {
                    reply_to: b"",
                    payload,
                },
                [b"subscribe", ..] => Heard::Ready,
                _ => return Err(wrong(bytes)),
            }
        }
        _ => return Err(wrong(head)),
    };
    Ok(Some((heard, bytes.len() - rest.len())))
}

fn mqtt(bytes: &[u8]) -> Next<'_> {
    let Some(&kind) = bytes.first() else {
        return Ok(None);
    };
    let (mut size, mut head) = (0, 1);
    loop {
        let Some(&byte) = bytes.get(head) else {
            return Ok(None);
        };
        size |= usize::from(byte & 0x7f) << (7 * (head - 1));
        head += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if head > 4 {
            return Err(wrong(b"a packet without a length"));
        }
    }
    let Some(body) = bytes.get(head..head + size) else {
        return Ok(None);
    };
    let heard = match (kind >> 4, body) {
        (3, [high, low, rest @ ..]) => {
            let topic = usize::from(u16::from_be_bytes([*high, *low]));
            let payload = rest.get(topic..).ok_or_else(|| wrong(b"a short packet"))?;
            Heard::Message {
                reply_to: b"",
                payload,
            }
        }
        (2, [_, 0]) | (9, [_, _, 0]) => Heard::Ready,
        _ => return Err(wrong(format!("packet {kind:#x}").as_bytes())),
    };
    Ok(Some((heard, head + size)))
}

/// The head of an MQTT packet.
fn packet(out: &mut Vec<u8>, kind: u8, mut size: usize) {
    out.push(kind);
    loop {
        let more = if size > 0x7f { 0x80 } else { 0 };
        out.push((size & 0x7f) as u8 | more);
        size >>= 7;
        if size == 0 {
            break;
        }
    }
}

/// A text of MQTT.
fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every cut of the bytes waits for more; the whole is what it is, and nothing is left.
    fn check(protocol: Protocol, bytes: &[u8], expected: &Heard<'_>) {
        for end in 0..bytes.len() {
            let cut = next(protocol, &bytes[..end]).unwrap();
            assert!(cut.is_none(), "{protocol}, {end} bytes: {cut:?}");
        }
        let (heard, size) = next(protocol, bytes).unwrap().unwrap();
        assert_eq!((&heard, size), (expected, bytes.len()), "{protocol}");
    }

    #[test]
    fn messages_are_read_whole() {
        let message =
            |reply_to: &'static [u8], payload: &'static [u8]| Heard::Message { reply_to, payload };
        let nats = Protocol::Nats;
        check(nats, b"MSG a.b 1 2\r\nhi\r\n", &message(b"", b"hi"));
        check(
            nats,
            b"MSG a.b 1 back 3\r\nh\r\n\r\n",
            &message(b"back", b"h\r\n"),
        );
        check(nats, b"PING\r\n", &Heard::Ping);
        check(nats, b"INFO {}\r\n", &Heard::Nothing);
        let redis = Protocol::Redis;
        let bytes = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n";
        check(redis, bytes, &message(b"", b"hi"));
        check(
            redis,
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
            &Heard::Ready,
        );
        check(redis, b":1\r\n", &Heard::Nothing);
        check(Protocol::Mqtt, b"\x30\x05\x00\x01ahi", &message(b"", b"hi"));
        check(Protocol::Mqtt, b"\x20\x02\x00\x00", &Heard::Ready);
    }

    #[test]
    fn a_publish_is_what_its_protocol_says() {
        let check = |protocol, expected: &[u8]| {
            let mut out = Vec::new();
            Envelope::new(protocol, b"a.b", "back", 2).put(&mut out, b"hi");
            assert_eq!(out, expected, "{protocol}");
        };
        check(Protocol::Nats, b"PUB a.b back 2\r\nhi\r\n");
        check(
            Protocol::Redis,
            b"*3\r\n$7\r\nPUBLISH\r\n$3\r\na.b\r\n$2\r\nhi\r\n",
        );
        check(Protocol::Mqtt, b"\x30\x07\x00\x03a.bhi");
        let mut out = Vec::new();
        packet(&mut out, 0x30, 321);
        assert_eq!(out, [0x30, 0xc1, 0x02]);
    }

    #[test]
    fn refusals_are_errors() {
        let check = |protocol, bytes: &[u8]| {
            assert!(next(protocol, bytes).is_err(), "{protocol}");
        };
        check(Protocol::Nats, b"-ERR 'no'\r\n");
        check(Protocol::Nats, b"MSG a 1 many\r\n");
        check(Protocol::Redis, b"-ERR no\r\n");
        check(Protocol::Mqtt, b"\x20\x02\x00\x05");
        check(Protocol::Mqtt, b"\x30\xff\xff\xff\xff\x01");
    }
}
