//! `fastmq request`: asks and shows the answer.

use std::io::Write;

use clap::{Arg, ArgMatches, Command};
use fastmq::{ANSWERS_ALL, Client, Message, Status};

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
        .arg(many())
        .args(output::arguments())
        .args(remote::arguments())
}

/// How many responders are asked.
fn many() -> Arg {
    Arg::new("many")
        .long("many")
        .value_name("NUMBER")
        .help("Waits for the answers of so many responders; all: of all that have the request")
        .value_parser(|text: &str| match (text, text.parse()) {
            ("all", _) => Ok(ANSWERS_ALL),
            (_, Ok(number)) if number > 0 && number < ANSWERS_ALL => Ok(number),
            _ => Err("a number above 0, or `all`"),
        })
}

pub(crate) fn run(out: &mut dyn Write, arguments: &ArgMatches) -> Outcome {
    let text = |name| arguments.get_one::<String>(name).map_or("", String::as_str);
    let many = arguments.get_one::<u32>("many").copied();
    let timeout_ns = remote::ns(arguments, "timeout").unwrap_or(TIMEOUT_NS);
    let headers = remote::headers(arguments)?;
    let (subject, payload) = (text("subject"), text("payload"));
    let form = Form::of(arguments);
    let remote = Remote::connect(arguments)?;
    let client = remote.client.clone();
    let mut ask = |payload: &[u8]| -> Outcome {
        let message = remote::message(subject, payload, &headers);
        match many {
            None => ask(out, &client, &message, timeout_ns, form)?,
            Some(many) => ask_many(out, &client, &message, many, timeout_ns, form)?,
        }
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
    message: &Message<'_>,
    timeout_ns: u64,
    form: Form,
) -> Outcome {
    let subject = String::from_utf8_lossy(message.subject);
    let reply = client.request(message, timeout_ns);
    let reply = reply.map_err(|error| Failure::from(error).about(&subject))?;
    show(
        out,
        &subject,
        reply.status,
        &reply.payload,
        &reply.headers,
        form,
    )
}

/// Asks several responders. Answers that are failures do not keep the others from being shown; the
/// first failure is the exit code.
fn ask_many(
    out: &mut dyn Write,
    client: &Client,
    message: &Message<'_>,
    many: u32,
    timeout_ns: u64,
    form: Form,
) -> Outcome {
    let subject = String::from_utf8_lossy(message.subject);
    let replies = client.request_many(message, many, timeout_ns);
    let replies = replies.map_err(|error| Failure::from(error).about(&subject))?;
    let mut first: Option<Failure> = None;
    for view in replies.messages() {
        let status = Status::from_number(view.status).unwrap_or(Status::Internal);
        let shown = if view.subscription_id == 0 {
            // No answer: why there are fewer than were asked for.
            let name = status.c_name().to_string_lossy();
            let text = format!("{subject}: there are no more answers: {name}");
            Err(Failure::new(code_of(status), text))
        } else {
            show(out, &subject, status, view.payload(), view.headers(), form)
        };
        let Err(failure) = shown else {
            continue;
        };
        match &first {
            Some(before) if !before.text().is_empty() => remote::note(failure.text()),
            _ => first = Some(failure),
        }
    }
    first.map_or(Ok(()), Err)
}

/// Shows an answer, or fails with it.
fn show(
    out: &mut dyn Write,
    subject: &str,
    status: Status,
    payload: &[u8],
    headers: &[u8],
    form: Form,
) -> Outcome {
    if form == Form::Json || status == Status::Ok {
        form.write_answer(out, status as u32, payload, headers)?;
    }
    if status == Status::Ok {
        return Ok(());
    }
    let said = output::harmless(payload);
    let name = status.c_name().to_string_lossy();
    let text = match said.trim() {
        "" => format!("{subject}: the answer is {name}"),
        said => format!("{subject}: the answer is {name}: {said}"),
    };
    Err(Failure::new(code_of(status), text))
}
