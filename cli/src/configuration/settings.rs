//! What can be configured: one table, from which flags, variables, keys of the file and the output
//! of `fastmq config` are made.

use clap::{Arg, ArgAction};
use fastmq::{Profile, SHARDS_MAX};

use super::value::{Kind, MIB};

/// A part of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Of `serve`.
    Server,
    /// Of the commands that talk to a server.
    Client,
    /// Of both.
    Both,
}

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The key in `fastmq.toml`, and its name everywhere.
    pub(crate) key: &'static str,
    pub(crate) flag: &'static str,
    pub(crate) variable: &'static str,
    pub(crate) kind: Kind,
    /// Empty: none, or one that depends on others.
    pub(crate) default: &'static str,
    /// The default of the profile `small`, where it is another.
    pub(crate) small: &'static str,
    pub(crate) part: Part,
    /// Whether a running server takes a new value over.
    pub(crate) is_reloaded: bool,
    pub(crate) help: &'static str,
}

const NONE: Setting = Setting {
    key: "",
    flag: "",
    variable: "",
    kind: Kind::Text,
    default: "",
    small: "",
    part: Part::Server,
    is_reloaded: false,
    help: "",
};

/// How a server's threads wait.
pub(crate) const WAITS: [(&str, Profile); 4] = [
    ("balanced", Profile::Balanced),
    ("latency", Profile::Latency),
    ("low-power", Profile::LowPower),
    ("busy-poll", Profile::BusyPoll),
];

/// All of them.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        key: "root",
        flag: "root",
        variable: "WORK_ROOT",
        kind: Kind::Path,
        default: ".fastmq",
        part: Part::Both,
        help: "Where fastmq.toml and sockets are",
        ..NONE
    },
    Setting {
        key: "data_root",
        flag: "data-root",
        variable: "WORK_DATA_ROOT",
        kind: Kind::Path,
        help: "What a server keeps, by one server at a time [default: data in the root]",
        ..NONE
    },
    Setting {
        key: "profile",
        flag: "profile",
        variable: "FASTMQ_PROFILE",
        kind: Kind::Choice(&["default", "small"]),
        default: "default",
        help: "small: other defaults, for a device with 16 MB",
        ..NONE
    },
    Setting {
        key: "listen",
        flag: "listen",
        variable: "FASTMQ_LISTEN",
        kind: Kind::Texts,
        help: "unix:PATH, shm:NAME or tcp://HOST:PORT; may be given several times [default: \
               tcp://127.0.0.1:4860 and fastmq.sock in the root]",
        ..NONE
    },
    Setting {
        key: "insecure",
        flag: "insecure",
        variable: "FASTMQ_INSECURE",
        kind: Kind::Flag,
        default: "false",
        help: "Listens where other machines reach it, though all is sent in the clear",
        ..NONE
    },
    Setting {
        key: "token_file",
        flag: "token-file",
        variable: "FASTMQ_TOKEN_FILE",
        kind: Kind::Path,
        part: Part::Both,
        is_reloaded: true,
        help: "The content of this file, without white space at its end, is what clients must know",
        ..NONE
    },
    Setting {
        key: "name",
        flag: "name",
        variable: "FASTMQ_NAME",
        kind: Kind::Text,
        help: "The server's name, which clients are told",
        ..NONE
    },
    Setting {
        key: "servers",
        flag: "servers",
        variable: "FASTMQ_SERVERS",
        kind: Kind::Texts,
        help: "Where else clients may connect, which they are told; may be given several times",
        ..NONE
    },
    Setting {
        key: "drain_seconds",
        flag: "drain-seconds",
        variable: "FASTMQ_DRAIN_SECONDS",
        kind: Kind::Number(0, 3600),
        default: "10",
        is_reloaded: true,
        help: "How long clients have to finish after SIGTERM or SIGINT",
        ..NONE
    },
    Setting {
        key: "shards",
        flag: "shards",
        variable: "FASTMQ_SHARDS",
        kind: Kind::Number(1, SHARDS_MAX as u64),
        small: "1",
        help: "Threads that serve connections [default: one for each core, at most 16; 1 on one \
               or two cores]",
        ..NONE
    },
    Setting {
        key: "connections_max",
        flag: "connections-max",
        variable: "FASTMQ_CONNECTIONS_MAX",
        kind: Kind::Number(1, 1_000_000),
        default: "65536",
        small: "64",
        help: "Connections at once",
        ..NONE
    },
    Setting {
        key: "subscriptions_max",
        flag: "subscriptions-max",
        variable: "FASTMQ_SUBSCRIPTIONS_MAX",
        kind: Kind::Number(1, 1 << 24),
        default: "4096",
        small: "256",
        is_reloaded: true,
        help: "Subscriptions of one connection",
        ..NONE
    },
    Setting {
        key: "memory_max",
        flag: "memory-max",
        variable: "FASTMQ_MEMORY_MAX",
        kind: Kind::Bytes(0, u64::MAX >> 1),
        default: "0",
        small: "4 MiB",
        help: "What messages that wait may take, such as 512 MiB; 0: no cap",
        ..NONE
    },
    Setting {
        key: "payload_max",
        flag: "payload-max",
        variable: "FASTMQ_PAYLOAD_MAX",
        kind: Kind::Bytes(1, 64 * MIB),
        default: "1 MiB",
        small: "64 KiB",
        help: "The largest payload",
        ..NONE
    },
    Setting {
        key: "queue_capacity",
        flag: "queue-capacity",
        variable: "FASTMQ_QUEUE_CAPACITY",
        kind: Kind::Bytes(4096, 1 << 30),
        default: "8 MiB",
        small: "256 KiB",
        help: "What waits in a queue for each of its publishers, if a client does not say",
        ..NONE
    },
    Setting {
        key: "wait",
        flag: "wait",
        variable: "FASTMQ_WAIT",
        kind: Kind::Choice(&[WAITS[0].0, WAITS[1].0, WAITS[2].0, WAITS[3].0]),
        default: WAITS[0].0,
        small: WAITS[2].0,
        help: "Whether a thread spins before it sleeps",
        ..NONE
    },
    Setting {
        key: "log",
        flag: "log",
        variable: "FASTMQ_LOG",
        kind: Kind::Choice(&["none", "error", "warn", "info", "debug"]),
        default: "info",
        is_reloaded: true,
        help: "The least important lines that the server writes to standard error",
        ..NONE
    },
    Setting {
        key: "url",
        flag: "server",
        variable: "FASTMQ_URL",
        kind: Kind::Text,
        part: Part::Client,
        help: "The server, or several with commas: unix:PATH, shm:NAME, tcp://HOST:PORT \
               [default: fastmq.sock in the root if one is named, else tcp://127.0.0.1:4860]",
        ..NONE
    },
];

impl Setting {
    /// Whether it concerns a part.
    pub(crate) fn is_of(&self, part: Part) -> bool {
        self.part == part || self.part == Part::Both
    }

    /// The flag of it.
    fn argument(&self) -> Arg {
        let help = format!("{} [env: {}]", self.help, self.variable);
        let argument = Arg::new(self.flag).long(self.flag).help(help);
        let argument = match self.flag {
            "server" => argument.short('s'),
            _ => argument,
        };
        match self.kind {
            Kind::Flag => argument.action(ArgAction::SetTrue),
            Kind::Texts => argument.value_name("URL").action(ArgAction::Append),
            Kind::Path if self.key == "token_file" => argument.value_name("FILE"),
            Kind::Path => argument.value_name("DIRECTORY"),
            Kind::Number(..) => argument.value_name("NUMBER"),
            Kind::Bytes(..) => argument.value_name("BYTES"),
            Kind::Choice(names) => argument.value_name("WORD").value_parser(names.to_vec()),
            Kind::Text if self.key == "url" => argument.value_name("URL"),
            Kind::Text => argument.value_name("TEXT"),
        }
    }
}

/// The flags of a part.
pub(crate) fn arguments(part: Part) -> impl Iterator<Item = Arg> {
    let settings = SETTINGS.iter().filter(move |it| it.is_of(part));
    settings.map(Setting::argument)
}
