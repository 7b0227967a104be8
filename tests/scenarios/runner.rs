//! Runs scenarios in Rust: README.md says what they are.
//!
//! `runner FILE...`: each file is a scenario; `runner -`: steps from the standard input, each
//! answered by a line.

#![forbid(unsafe_code)]

mod sending;
mod step;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicU32, Ordering};

use fastmq::{
    ANSWERS_ALL, Client, ConnectOptions, Delivery, GroupMode, ManyOptions, Options, Policy,
    Publisher, Queue, QueueOptions, ReplyStream, Requester, RequesterOptions, Server,
    ServerOptions, Status, SubscribeOptions, Subscription, View,
};
use sending::{
    MILLISECOND, Outgoing, PATIENCE_MS, Refusal, headers_of, name_of, said, same, same_headers,
    same_numbers, text, timeout_ns,
};
use step::{Failed, Step, decode, fails, number};

const SCHEMES: [&str; 3] = ["unix", "shm", "tcp"];

/// What a step gives: nothing, the status of an answer, or what is to be told.
enum Said {
    Done,
    Answer(Status),
    Told(String),
}

type Outcome = Result<Said, Refusal>;

/// Handles by name. They are dropped in the order of their kinds, clients last.
#[derive(Default)]
struct Scenario {
    messages: HashMap<String, u64>,
    streams: HashMap<String, ReplyStream>,
    requesters: HashMap<String, Requester>,
    publishers: HashMap<String, Publisher>,
    subscriptions: HashMap<String, Subscription>,
    queues: HashMap<String, Queue>,
    servers: HashMap<String, Server>,
    clients: HashMap<String, Client>,
}

fn find<'t, T>(things: &'t HashMap<String, T>, name: &str) -> Result<&'t T, Failed> {
    things.get(name).ok_or_else(|| unknown(name))
}

fn find_mut<'t, T>(things: &'t mut HashMap<String, T>, name: &str) -> Result<&'t mut T, Failed> {
    things.get_mut(name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Failed {
    Failed(format!("nothing is called {name}"))
}

fn policy(name: &[u8]) -> Result<Policy, Failed> {
    match name {
        b"" | b"backpressure" => Ok(Policy::Backpressure),
        b"drop_oldest" => Ok(Policy::DropOldest),
        b"drop_newest" => Ok(Policy::DropNewest),
        b"latest" => Ok(Policy::Latest),
        _ => fails("unknown policy"),
    }
}

impl Scenario {
    /// Does what a line says; gives what it has to tell.
    fn run(&mut self, line: &str) -> Result<String, Failed> {
        let mut step = Step::parse(line)?;
        let (not, only) = (step.take("not")?, step.take("in")?);
        if not.as_deref() == Some(b"rust") || only.is_some_and(|only| only != b"rust") {
            return Ok(String::new());
        }
        let fields = step.fields.clone();
        let (mut code, mut sentence, mut told) = ("OK".to_owned(), String::new(), String::new());
        for index in 0..step.repeat {
            step.fields.clone_from(&fields);
            step.index = index;
            match self.does(&mut step) {
                Ok(Said::Done) => {}
                Ok(Said::Answer(status)) => code = name_of(status),
                Ok(Said::Told(text)) => told = text,
                Err(Refusal::Scenario(failed)) => return Err(failed),
                Err(Refusal::Library(error)) => {
                    (code, sentence) = (name_of(error.status()), error.text().to_owned());
                    // What a refusal leaves unread is no fault.
                    step.fields.clear();
                    break;
                }
            }
        }
        if code != step.status || !sentence.contains(&step.part) {
            let Step { status, part, .. } = step;
            return fails(format!("got {code} ({sentence}), expected {status} {part}"));
        }
        match step.fields.first() {
            Some((name, _)) => fails(format!("unknown field {name}")),
            None => Ok(told),
        }
    }

    fn does(&mut self, step: &mut Step) -> Outcome {
        match step.verb.as_str() {
            "open" => self.open(step),
            "connect" => self.connect(step),
            "listen" => self.listen(step),
            "drain" => {
                let timeout_ns = timeout_ns(step)?;
                find(&self.clients, step.name(0)?)?.drain(timeout_ns)?;
                Ok(Said::Done)
            }
            "close" => self.close(step.name(0)?),
            "client_statistics" => self.client_statistics(step),
            "publish" => {
                let message = Outgoing::new(step, step.bytes(1)?, step.bytes(2)?)?;
                find(&self.clients, step.name(0)?)?.publish_message(&message.message())?;
                Ok(Said::Done)
            }
            "publish_wait" => {
                let timeout_ns = timeout_ns(step)?;
                let message = Outgoing::new(step, step.bytes(1)?, step.bytes(2)?)?;
                let client = find(&self.clients, step.name(0)?)?;
                client.publish_wait(&message.message(), timeout_ns)?;
                Ok(Said::Done)
            }
            "forget_last" => {
                find(&self.clients, step.name(0)?)?.forget_last(step.bytes(1)?)?;
                Ok(Said::Done)
            }
            "publisher_open" => {
                let publisher = find(&self.clients, step.name(1)?)?.publisher(step.bytes(2)?)?;
                self.publishers.insert(step.name(0)?.to_owned(), publisher);
                Ok(Said::Done)
            }
            "publisher_publish" => {
                let message = Outgoing::new(step, Vec::new(), step.bytes(1)?)?;
                find_mut(&mut self.publishers, step.name(0)?)?
                    .publish_message(&message.message())?;
                Ok(Said::Done)
            }
            "publisher_claim" => self.claim(step),
            "queue_open" => self.queue_open(step),
            "subscribe" => self.subscribe(step, None),
            "unsubscribe" => {
                find(&self.subscriptions, step.name(0)?)?.unsubscribe();
                Ok(Said::Done)
            }
            "receive" => self.receive(step),
            "queue_statistics" => self.queue_statistics(step),
            "subscription_statistics" => {
                let (delivered, dropped) = find(&self.subscriptions, step.name(0)?)?.counts();
                same_numbers(step, &[("delivered", delivered), ("dropped", dropped)])?;
                Ok(Said::Done)
            }
            "respond" => self.respond(step),
            "reply" => {
                let status = said(step)?;
                let headers = headers_of(step)?;
                let token = *find(&self.messages, step.name(1)?)?;
                let client = find(&self.clients, step.name(0)?)?;
                client.reply_with(token, status, step.bytes(2)?, headers.as_bytes())?;
                Ok(Said::Done)
            }
            "request" => self.request(step),
            "request_many" => self.request_many(step),
            "requester_open" => {
                let subject = step.take("subject")?.unwrap_or_default();
                let options = RequesterOptions {
                    subject: &subject,
                    in_flight_max: number(step.number("in_flight_max", 0)?)?,
                    ..RequesterOptions::default()
                };
                let requester = find(&self.clients, step.name(1)?)?.requester(options)?;
                self.requesters.insert(step.name(0)?.to_owned(), requester);
                Ok(Said::Done)
            }
            "requester_submit" | "requester_submit_many" => self.submit(step),
            "requester_receive" => self.answer(step),
            "requester_cancel" => {
                let token = step.token(1)?;
                find_mut(&mut self.requesters, step.name(0)?)?.cancel(token)?;
                Ok(Said::Done)
            }
            "reply_stream_open" => {
                let token = *find(&self.messages, step.name(2)?)?;
                let stream = find(&self.clients, step.name(1)?)?.reply_stream(token)?;
                self.streams.insert(step.name(0)?.to_owned(), stream);
                Ok(Said::Done)
            }
            "reply_stream_send" => {
                let headers = headers_of(step)?;
                let stream = find_mut(&mut self.streams, step.name(0)?)?;
                stream.send(&step.bytes(1)?, headers.as_bytes())?;
                Ok(Said::Done)
            }
            "reply_stream_end" => {
                let status = said(step)?;
                find_mut(&mut self.streams, step.name(0)?)?.end(status)?;
                Ok(Said::Done)
            }
            verb => Ok(fails(format!("unknown step {verb}"))?),
        }
    }

    fn open(&mut self, step: &mut Step) -> Outcome {
        let default = Options::default();
        let options = Options {
            memory_max: step.number("memory_max", default.memory_max)?,
            queue_capacity: step.number("queue_capacity", default.queue_capacity)?,
            payload_max: step.number("payload_max", default.payload_max)?,
            ..default
        };
        self.clients
            .insert(step.name(0)?.to_owned(), Client::open(options)?);
        Ok(Said::Done)
    }

    fn connect(&mut self, step: &mut Step) -> Outcome {
        let mut url = step.name(1)?.to_owned();
        if !url.contains(':')
            && let Some((server, scheme)) = url.split_once('.')
            && let Some(at) = SCHEMES.iter().position(|known| *known == scheme)
        {
            url.clone_from(&find(&self.servers, server)?.urls()[at]);
        }
        let options = ConnectOptions {
            name: text(step.take("name")?.unwrap_or_default())?,
            token: step.take("token")?.unwrap_or_default(),
            ..ConnectOptions::default()
        };
        let client = Client::connect(&url, options)?;
        self.clients.insert(step.name(0)?.to_owned(), client);
        Ok(Said::Done)
    }

    fn listen(&mut self, step: &mut Step) -> Outcome {
        static PLACES: AtomicU32 = AtomicU32::new(0);
        let place = PLACES.fetch_add(1, Ordering::Relaxed);
        let name = format!("fastmq-scenario-{}-{place}", std::process::id());
        let at = std::env::temp_dir().join(name).display().to_string();
        let urls = [
            &*format!("unix:{at}.sock"),
            &*format!("shm:{at}.shm"),
            "tcp://127.0.0.1:0",
        ];
        let options = ServerOptions {
            name: text(step.take("name")?.unwrap_or_default())?,
            token: step.take("token")?.unwrap_or_default(),
            ..ServerOptions::default()
        };
        let server = find(&self.clients, step.name(1)?)?.listen(&urls, options)?;
        let told = server.urls().join(" ");
        self.servers.insert(step.name(0)?.to_owned(), server);
        Ok(Said::Told(told))
    }

    /// Closes whatever is called so.
    fn close(&mut self, name: &str) -> Outcome {
        if let Some(client) = self.clients.get(name) {
            client.close();
        } else if let Some(queue) = self.queues.get(name) {
            queue.close();
        } else if let Some(server) = self.servers.remove(name) {
            server.close(0);
        } else {
            let is_there = self.publishers.remove(name).is_some()
                || self.requesters.remove(name).is_some()
                || self.streams.remove(name).is_some();
            if !is_there {
                return Err(unknown(name).into());
            }
        }
        Ok(Said::Done)
    }

    fn client_statistics(&mut self, step: &mut Step) -> Outcome {
        let figures = find(&self.clients, step.name(0)?)?.statistics();
        let figures = [
            ("published", figures.published),
            ("delivered", figures.delivered),
            ("dropped", figures.dropped),
            ("expired", figures.expired),
            ("refused", figures.refused),
            ("requests", figures.requests),
            ("answers", figures.answers),
            ("late_answers", figures.late_answers),
            ("queues", figures.queues),
            ("subscriptions", figures.subscriptions),
            ("last_values", figures.last_values),
        ];
        same_numbers(step, &figures)?;
        Ok(Said::Done)
    }

    fn claim(&mut self, step: &mut Step) -> Outcome {
        let publisher = find_mut(&mut self.publishers, step.name(0)?)?;
        let size = usize::try_from(step.token(1)?).unwrap_or(usize::MAX);
        let mut claim = publisher.claim(size)?;
        if step.words.len() > 2 {
            let payload = step.bytes(2)?;
            claim.bytes()[..payload.len()].copy_from_slice(&payload);
            claim.commit(payload.len())?;
        }
        Ok(Said::Done)
    }

    fn queue_open(&mut self, step: &mut Step) -> Outcome {
        let options = QueueOptions {
            policy: policy(&step.take("policy")?.unwrap_or_default())?,
            capacity: step.number("capacity", 0)?,
            ..QueueOptions::default()
        };
        let queue = find(&self.clients, step.name(1)?)?.queue(options)?;
        self.queues.insert(step.name(0)?.to_owned(), queue);
        Ok(Said::Done)
    }

    fn subscribe(
        &mut self,
        step: &mut Step,
        on_message: Option<Box<fastmq::OnMessage>>,
    ) -> Outcome {
        let (group, queue) = (step.take("group")?, step.take("queue")?);
        let mode = step.take("group_mode")?.unwrap_or_default();
        let queue = queue.map(text).transpose()?;
        let options = SubscribeOptions {
            group: group.as_deref().unwrap_or_default(),
            group_mode: match mode.as_slice() {
                b"" | b"balanced" => GroupMode::Balanced,
                b"key_shared" => GroupMode::KeyShared,
                _ => return Ok(fails("unknown group_mode")?),
            },
            weight: number(step.number("weight", 0)?)?,
            delivery: match on_message {
                Some(_) => Delivery::Thread,
                None => Delivery::Queue,
            },
            queue: queue.map(|name| find(&self.queues, &name)).transpose()?,
            policy: policy(&step.take("policy")?.unwrap_or_default())?,
            replay_last: step.number("replay_last", 0)? != 0,
            tag: step.number("tag", 0)?,
            on_message,
        };
        let client = find(&self.clients, step.name(1)?)?;
        let subscription = client.subscribe_with(step.bytes(2)?, options)?;
        self.subscriptions
            .insert(step.name(0)?.to_owned(), subscription);
        Ok(Said::Done)
    }

    /// The queue that is called so, or that of the subscription that is.
    fn queue(&self, name: &str) -> Result<&Queue, Failed> {
        match self.queues.get(name) {
            Some(queue) => Ok(queue),
            None => find(&self.subscriptions, name)?
                .queue()
                .ok_or_else(|| unknown(name)),
        }
    }

    fn receive(&mut self, step: &mut Step) -> Outcome {
        let timeout_ns = timeout_ns(step)?;
        let name = step.name(0)?.to_owned();
        let token = {
            let batch = self.queue(&name)?.receive(1, timeout_ns)?;
            let message = &batch.messages()[0];
            self.check(step, message)?;
            message.token
        };
        self.messages.insert(name, token);
        Ok(Said::Done)
    }

    /// The message has what the words and fields of a step say.
    fn check(&self, step: &mut Step, message: &View) -> Result<(), Failed> {
        same("subject", message.subject(), &step.bytes(1)?)?;
        same("payload", message.payload(), &step.bytes(2)?)?;
        let wanted = step.prefixed("header.")?;
        if !wanted.is_empty() {
            let wanted: Result<Vec<_>, _> = wanted
                .into_iter()
                .map(|(name, value)| Ok((name, self.id(value)?)))
                .collect();
            same_headers(message.headers(), &wanted?)?;
        }
        for (name, value) in std::mem::take(&mut step.fields) {
            let wanted = self.id(decode(&value)?)?;
            let figure = match name.as_str() {
                "key" => {
                    same("key", message.key(), &wanted)?;
                    continue;
                }
                "reply_to" => {
                    same("reply_to", message.reply_to(), &wanted)?;
                    continue;
                }
                "sequence" => message.sequence,
                "token" => message.token,
                "delivery_count" => message.delivery_count.into(),
                "lost_before" => message.lost_before.into(),
                "status" => message.status.into(),
                "subscription_id" => message.subscription_id.into(),
                "tag" => message.tag,
                // FASTMQ_MESSAGE_REQUEST.
                "is_request" => u64::from(message.flags & 8 != 0),
                _ => return fails(format!("unknown field {name}")),
            };
            same(&name, figure.to_string().as_bytes(), &wanted)?;
        }
        Ok(())
    }

    /// An id is known by the name of its subscription.
    fn id(&self, value: Vec<u8>) -> Result<Vec<u8>, Failed> {
        let Some(name) = value.strip_prefix(b"@") else {
            return Ok(value);
        };
        let subscription = find(&self.subscriptions, &text(name.to_vec())?)?;
        Ok(subscription.id().to_string().into_bytes())
    }

    fn queue_statistics(&mut self, step: &mut Step) -> Outcome {
        let figures = self.queue(step.name(0)?)?.statistics();
        let figures = [
            ("published", figures.published),
            ("delivered", figures.delivered),
            ("dropped", figures.dropped),
            ("expired", figures.expired),
            ("pending", figures.pending),
            ("replaced", figures.replaced),
        ];
        same_numbers(step, &figures)?;
        Ok(Said::Done)
    }

    fn respond(&mut self, step: &mut Step) -> Outcome {
        let status = said(step)?;
        let (prefix, headers) = (step.bytes(3)?, headers_of(step)?);
        let client = find(&self.clients, step.name(1)?)?.clone();
        let answer = move |request: &View| {
            let payload = [&prefix, request.payload()].concat();
            // An asker that is gone is no fault.
            let _ = client.reply_with(request.token, status, payload, headers.as_bytes());
        };
        self.subscribe(step, Some(Box::new(answer)))
    }

    fn request(&mut self, step: &mut Step) -> Outcome {
        let wanted = step.prefixed("answer.")?;
        let timeout_ns = timeout_ns(step)?;
        let message = Outgoing::new(step, step.bytes(1)?, step.bytes(2)?)?;
        let client = find(&self.clients, step.name(0)?)?;
        let answer = client.request(&message.message(), timeout_ns)?;
        if step.words.len() > 3 {
            same("answer", &answer.payload, &step.bytes(3)?)?;
        }
        if !wanted.is_empty() {
            same_headers(&answer.headers, &wanted)?;
        }
        Ok(Said::Answer(answer.status))
    }

    fn request_many(&mut self, step: &mut Step) -> Outcome {
        let answers_max = number(step.number("answers_max", ANSWERS_ALL.into())?)?;
        let timeout_ns = timeout_ns(step)?;
        let message = Outgoing::new(step, step.bytes(1)?, step.bytes(2)?)?;
        let client = find(&self.clients, step.name(0)?)?;
        let all = client.request_many(&message.message(), answers_max, timeout_ns)?;
        let answered = all
            .messages()
            .iter()
            .filter(|answer| answer.subscription_id != 0);
        let mut got: Vec<_> = answered.map(|answer| answer.payload().to_vec()).collect();
        let wanted = step.words.iter().skip(3).map(|word| decode(word));
        let wanted: Result<Vec<_>, _> = wanted.collect();
        let mut wanted = wanted?;
        got.sort();
        wanted.sort();
        same("answers", &got.join(&b' '), &wanted.join(&b' '))?;
        let last = all.messages().last();
        let ended = last.filter(|last| last.subscription_id == 0);
        let code = ended.and_then(|last| Status::from_number(last.status));
        Ok(Said::Answer(code.unwrap_or(Status::Ok)))
    }

    fn submit(&mut self, step: &mut Step) -> Outcome {
        let timeout_ns = timeout_ns(step)?;
        let token = step.token(1)? + step.index;
        let subject = step.take("subject")?.unwrap_or_default();
        let message = Outgoing::new(step, subject, step.bytes(2)?)?;
        let requester = find_mut(&mut self.requesters, step.name(0)?)?;
        if step.verb == "requester_submit" {
            requester.submit_message(&message.message(), token, timeout_ns)?;
            return Ok(Said::Done);
        }
        let options = ManyOptions {
            answers_max: number(step.number("answers_max", 0)?)?,
            credit: number(step.number("credit", 0)?)?,
            ..ManyOptions::default()
        };
        requester.submit_many(&message.message(), token, timeout_ns, &options)?;
        Ok(Said::Done)
    }

    fn answer(&mut self, step: &mut Step) -> Outcome {
        let requester = find_mut(&mut self.requesters, step.name(0)?)?;
        let batch = requester.receive(1, PATIENCE_MS * MILLISECOND)?;
        let answer = &batch.messages()[0];
        let (token, wanted) = (answer.token.to_string(), step.token(1)?.to_string());
        same("token", token.as_bytes(), wanted.as_bytes())?;
        let payload = match step.words.len() {
            0..=2 => Vec::new(),
            _ => step.bytes(2)?,
        };
        same("payload", answer.payload(), &payload)?;
        let wanted = step.prefixed("header.")?;
        if !wanted.is_empty() {
            same_headers(answer.headers(), &wanted)?;
        }
        Ok(Said::Answer(
            Status::from_number(answer.status).unwrap_or(Status::Internal),
        ))
    }
}

fn of_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = name.trim_end_matches(".scenario");
    let lines = std::fs::read_to_string(path).expect("the scenario is there");
    let mut scenario = Scenario::default();
    for (index, line) in lines.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Err(Failed(why)) = scenario.run(line) {
            println!("not ok - {name}: line {}: {why}", index + 1);
            return false;
        }
    }
    println!("ok - {name}");
    true
}

fn of_input() {
    let mut scenario = Scenario::default();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the standard input is text");
        match scenario.run(&line) {
            Ok(told) => println!("{}", format!("ok {told}").trim_end()),
            Err(Failed(why)) => println!("not ok {line}: {why}"),
        }
        std::io::stdout()
            .flush()
            .expect("the standard output is open");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["-"] {
        return of_input();
    }
    // All of them, also behind one that fails.
    let failed = arguments.iter().filter(|path| !of_file(path)).count();
    std::process::exit(i32::from(failed > 0));
}
