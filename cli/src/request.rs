//! `fastmq request`: asks and shows the answer.

use std::io::Write;

use clap::{Arg, ArgMatches, Command};
use fastmq::{Client, Status};

use crate::failure::{Failure, Outcome, code_of};
use crate::output::{self, Form};
use crate::remote::{self, Remote};

const TIMEOUT_NS: u64 = 5_000_000_000;

/// The command line.
pub(crate) fn command() -> Command {
    let subject = Arg::new("subject").value_name("SUBJECT").required(true);
    let payload = Arg::new("payload")
        .value_name("PAYLOAD")
        .help("What to ask; -: each line of standard input, one after the other")
        .default_value("");
    Command::new("request")
        .about("Asks, and shows the answer")
        .args([subject, payload, remote::header_argument()])
        .arg(remote::seconds(
            "timeout",
            "How long to wait for an answer; 5 if not given",
        ))
        .arg(remote::count(
            "many",
            "Waits for so many answers; servers do not offer that yet",
        ))
        .args(output::arguments())
        .args(remote::arguments())
}

pub(crate) fn run(out: &mut dyn Write, arguments: &ArgMatches) -> Outcome {
    let text = |name| arguments.get_one::<String>(name).map_or("", String::as_str);
    if arguments.get_one::<u64>("many").is_some() {
        return Err(Failure::usage(
            "--many: a server takes no requests for several answers yet",
        ));
    }
    let timeout_ns = remote::ns(arguments, "timeout").unwrap_or(TIMEOUT_NS);
    let headers = remote::headers(arguments)?;
    let (subject, payload) = (text("subject"), text("payload"));
    let form = Form::of(arguments);
    let remote = Remote::connect(arguments)?;
    let client = remote.client.clone();
    let mut ask = |payload: &[u8]| -> Outcome {
        let message = remote::message(subject, payload, &headers);
        ask(out, &client, &message, timeout_ns, form)?;
        Ok(out.flush()?)
    };
    if payload != "-" {
        ask(payload.as_bytes())?;
        return remote.close();
    }
    // A question that fails does not keep the next one; the first failure is the exit code.
    let mut first = None;
    remote::each_line(|line| {
        let Err(failure) = ask(line) else {
            return Ok(());
        };
        if failure.text().is_empty() {
            return Err(failure);
        }
        remote::note(failure.text());
        first.get_or_insert(failure.code());
        Ok(())
    })?;
    remote.close()?;
    first.map_or(Ok(()), |code| Err(Failure::told(code)))
}

fn ask(
    out: &mut dyn Write,
    client: &Client,
    message: &fastmq::Message<'_>,
    timeout_ns: u64,
    form: Form,
) -> Outcome {
    let subject = String::from_utf8_lossy(message.subject);
    let reply = client.request(message, timeout_ns);
    let reply = reply.map_err(|error| Failure::from(error).about(&subject))?;
    if form == Form::Json || reply.status == Status::Ok {
        form.write_answer(out, reply.status as u32, &reply.payload, &reply.headers)?;
    }
    if reply.status == Status::Ok {
        return Ok(());
    }
    let said = output::harmless(&reply.payload);
    let status = reply.status.c_name().to_string_lossy();
    let text = match said.trim() {
        "" => format!("{subject}: the answer is {status}"),
        said => format!("{subject}: the answer is {status}: {said}"),
    };
    Err(Failure::new(code_of(reply.status), text))
}
