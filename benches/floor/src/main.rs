//! The bare programs that show the limit: the same record bytes and threads as FAST MQ, nothing
//! else. One sub-command measures one figure and prints one CSV line,
//! `program,case,param,unit,value[,p50,p99,p999]`; `list` prints every sub-command.
//!
//! Not here: repetition, interleaving and comparison. That is `benches/run.py`.

#![deny(unsafe_code)]

mod channel;
mod echo;
#[allow(unsafe_code)]
mod epoll;
mod fan_out;
mod game;
mod inline_dispatch;
mod latest;
mod one_way;
mod ping_pong;
mod relay;
mod report;
mod request_reply;
#[allow(unsafe_code)]
mod ring;
mod subjects;

use std::process::ExitCode;
use std::time::Duration;

use echo::{Server, Wait};
use report::{Plan, Row};

/// How a message names its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// By subject text: hashed, looked up and compared among 1,024, and carried in the record.
    Text,
    /// By handle: nothing to look up, the record carries an id.
    Handle,
}

const USAGE: &str = "usage: fastmq-floor [--ms N] [--warm-up-ms N] PROGRAM CASE PARAM
  floor ping-pong line
  floor round-trip spin
  floor request-reply (string|handle)/OUTSTANDING[/burst]
  floor one-way (string|handle)/BYTES/(call|batch)
  floor publishers COUNT
  floor inline (string|handle)
  floor latest (string|handle)/(wall|thread)
  floor socket-echo (unix|tcp)/OUTSTANDING/(spin|sleep)
  floor socket-round-trip (unix|tcp)/(spin|sleep)
  floor socket-routed (unix|tcp)/OUTSTANDING
  floor socket-fan-out (unix|tcp)/CONNECTIONS/MESSAGES
  floor socket-game PLAYERS/TICKS
  sockets socket-echo (uring|uring-basic|epoll)/(unix|tcp)/OUTSTANDING/(spin|sleep)
  sockets socket-round-trip (uring|uring-basic|epoll)/(unix|tcp)/(spin|sleep)
  crossbeam round-trip spin
  crossbeam request-reply OUTSTANDING
  crossbeam one-way call
  crossbeam publishers COUNT";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(row) => {
            println!("{row}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("fastmq-floor: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<Row, String> {
    let mut plan = Plan::default();
    let mut words: Vec<&str> = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let target = match argument.as_str() {
            "--ms" => &mut plan.measure,
            "--warm-up-ms" => &mut plan.warm_up,
            word => {
                words.push(word);
                continue;
            }
        };
        let value = rest
            .next()
            .ok_or_else(|| format!("{argument} needs a number"))?;
        *target = Duration::from_millis(number(value)?);
    }
    let [program, case, param] = words[..] else {
        return Err(USAGE.to_owned());
    };
    let parts: Vec<&str> = param.split('/').collect();
    let (unit, value) = match (program, case, &parts[..]) {
        ("floor", "ping-pong", ["line"]) => ("ns", ping_pong::run(plan)?),
        ("floor", "round-trip", ["spin"]) => {
            return Ok(Row::latency(
                program,
                case,
                param,
                request_reply::round_trip(plan)?,
            ));
        }
        ("crossbeam", "round-trip", ["spin"]) => {
            return Ok(Row::latency(
                program,
                case,
                param,
                channel::round_trip(plan)?,
            ));
        }
        ("floor", "socket-round-trip", [family, how]) => {
            let server = Server::Bare;
            let of = echo::round_trip(plan, server, family, Wait::of(how)?)?;
            return Ok(Row::latency(program, case, param, of));
        }
        ("sockets", "socket-round-trip", [tier, family, how]) => {
            let server = Server::Sockets(echo::tier(tier)?);
            let of = echo::round_trip(plan, server, family, Wait::of(how)?)?;
            return Ok(Row::latency(program, case, param, of));
        }
        ("floor", "socket-echo", [family, outstanding, how]) => {
            let (outstanding, wait) = (number(outstanding)?, Wait::of(how)?);
            let value = echo::run(plan, Server::Bare, family, outstanding, wait)?;
            ("M frames/s", value)
        }
        ("floor", "socket-routed", [family, outstanding]) => {
            ("M pairs/s", relay::run(plan, family, number(outstanding)?)?)
        }
        ("floor", "socket-fan-out", [family, connections, messages]) => {
            let (connections, messages) = (number(connections)?, number(messages)?);
            let value = fan_out::run(plan, family, connections, messages)?;
            ("M deliveries/s", value)
        }
        ("floor", "socket-game", [players, per_second]) => {
            let of = game::run(plan, number(players)?, number(per_second)?)?;
            return Ok(Row::latency(program, case, param, of));
        }
        ("sockets", "socket-echo", [tier, family, outstanding, how]) => {
            let server = Server::Sockets(echo::tier(tier)?);
            let (outstanding, wait) = (number(outstanding)?, Wait::of(how)?);
            let value = echo::run(plan, server, family, outstanding, wait)?;
            ("M frames/s", value)
        }
        ("floor", "request-reply", [how, outstanding]) => {
            let outstanding = number(outstanding)?;
            (
                "M pairs/s",
                request_reply::run(plan, address(how)?, outstanding, false)?,
            )
        }
        ("floor", "request-reply", [how, outstanding, "burst"]) => {
            let outstanding = number(outstanding)?;
            (
                "M pairs/s",
                request_reply::run(plan, address(how)?, outstanding, true)?,
            )
        }
        ("crossbeam", "request-reply", [outstanding]) => (
            "M pairs/s",
            channel::request_reply(plan, number(outstanding)?)?,
        ),
        ("floor", "one-way", [how, bytes, "call"]) => (
            "M msg/s",
            one_way::run(plan, address(how)?, number(bytes)? as usize, 1, 1)?,
        ),
        ("floor", "one-way", [how, bytes, "batch"]) => (
            "M msg/s",
            one_way::run(plan, address(how)?, number(bytes)? as usize, 64, 1)?,
        ),
        ("crossbeam", "one-way", ["call"]) => ("M msg/s", channel::one_way(plan, 1)?),
        ("floor", "publishers", [count]) => {
            let count = number(count)? as usize;
            (
                "M msg/s",
                one_way::run(plan, Address::Handle, 16, 1, count)?,
            )
        }
        ("crossbeam", "publishers", [count]) => {
            ("M msg/s", channel::one_way(plan, number(count)? as usize)?)
        }
        ("floor", "latest", [how, clock]) => {
            let clock = match *clock {
                "wall" => latest::Clock::Wall,
                "thread" => latest::Clock::Thread,
                _ => return Err(format!("{clock} is neither wall nor thread")),
            };
            ("ns", latest::run(plan, address(how)?, clock)?)
        }
        ("floor", "inline", [how]) => ("M pairs/s", inline_dispatch::run(plan, address(how)?)?),
        _ => return Err(USAGE.to_owned()),
    };
    Ok(Row::rate(program, case, param, unit, value))
}

fn number(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(value) if (1..=1 << 20).contains(&value) => Ok(value),
        _ => Err(format!("{text} is not a number from 1 to 1048576")),
    }
}

fn address(text: &str) -> Result<Address, String> {
    match text {
        "string" => Ok(Address::Text),
        "handle" => Ok(Address::Handle),
        _ => Err(format!("{text} is neither string nor handle")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &str) -> Result<Row, String> {
        let mut arguments: Vec<String> =
            ["--ms", "2", "--warm-up-ms", "1"].map(String::from).into();
        arguments.extend(words.split(' ').map(String::from));
        run(&arguments)
    }

    #[test]
    fn every_case_runs_and_names_itself_in_its_line() {
        for words in [
            "floor ping-pong line",
            "floor round-trip spin",
            "floor request-reply string/8",
            "floor request-reply handle/64/burst",
            "floor one-way string/16/call",
            "floor one-way handle/65536/batch",
            "floor publishers 2",
            "floor inline string",
            "floor inline handle",
            "floor latest string/wall",
            "floor latest handle/thread",
            "floor socket-echo unix/64/spin",
            "floor socket-echo tcp/64/sleep",
            "floor socket-round-trip unix/sleep",
            "floor socket-routed unix/64",
            "floor socket-routed tcp/4096",
            "floor socket-fan-out unix/20/4",
            "floor socket-fan-out tcp/3/16",
            "floor socket-game 8/1000",
            "sockets socket-echo epoll/tcp/64/spin",
            "sockets socket-echo epoll/unix/64/sleep",
            "sockets socket-round-trip epoll/tcp/spin",
            "crossbeam round-trip spin",
            "crossbeam request-reply 8",
            "crossbeam one-way call",
        ] {
            let line = check(words)
                .unwrap_or_else(|text| panic!("{words}: {text}"))
                .to_string();
            assert!(
                line.starts_with(&format!("{},", words.replace(' ', ","))),
                "{line}"
            );
        }
    }

    #[test]
    fn unknown_words_are_refused_with_the_usage() {
        assert!(
            check("floor one-way string/16/twice")
                .unwrap_err()
                .contains("usage")
        );
        assert!(
            check("floor one-way text/16/call")
                .unwrap_err()
                .contains("neither")
        );
        assert!(
            check("floor request-reply string/0")
                .unwrap_err()
                .contains("not a number")
        );
    }
}
