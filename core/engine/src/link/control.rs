//! Control frames of a ready connection: answers, refusals, events, signs of life, ends.

use fastmq_driver::FOREVER_NS;
use fastmq_memory::allocation::try_bytes;
use fastmq_wire::control::event;
use fastmq_wire::{Control, ControlDraft, Field, Kind};

use crate::error::{Error, Fault, Result, Status};
use crate::log;

use super::Event;
use super::asked::Refusal;
use super::session::{Ending, Farewell, Session, ended};
use super::state::{TOO_LARGE, no_memory};

/// Bytes that wait for the socket beyond which no PONG is added: a server may send PINGs and not
/// read.
const URGENT_BYTES_MAX: usize = 4096;

impl Session {
    pub(super) fn on_control(
        &mut self,
        control: &Control<'_>,
        now_ns: u64,
    ) -> std::result::Result<(), Ending> {
        match control.kind() {
            Kind::Ack => self.on_answer(control.operation(), Ok(())),
            Kind::Error if control.is_fatal() => {
                let _is_owed = self.life.heard_goodbye();
                return Err(said(control, Status::Disconnected));
            }
            Kind::Error if control.operation() == 0 => self.on_refusal(control),
            Kind::Error => self.on_answer(control.operation(), Err(said(control, Status::Invalid))),
            Kind::Event => self.on_event(control),
            Kind::Alias => {
                let subject = control.bytes(Field::Subject).unwrap_or_default();
                if !subject.is_empty() && fastmq_route::check_subject(subject).is_err() {
                    return Err(ended(&Fault(
                        Status::Invalid,
                        "the server's bytes are wrong: the subject of an alias is none",
                    )));
                }
                let publisher = control.number(Field::Publisher).unwrap_or(0);
                let make = || try_bytes(subject).map_err(|_| fastmq_wire::Fault::NoMemory);
                let defined = self
                    .aliases
                    .define(control.alias(), subject, publisher, make);
                defined.map_err(|fault| self.refuse(&fault))?;
            }
            Kind::Credit => {
                self.uplink.state().credit.raise(control.whole());
                // What is stored may go.
                self.uplink.nudge();
                self.uplink.report_room();
            }
            Kind::Ping => {
                let mut state = self.uplink.state();
                if state.urgent.len() >= URGENT_BYTES_MAX {
                    // Those that wait to be sent are sign of life enough.
                    return Ok(());
                }
                let pong = ControlDraft::whole(&mut state.urgent, Kind::Pong, control.whole());
                pong.map_err(no_memory)?;
                drop(state);
                self.uplink.nudge();
            }
            Kind::Drain => self.on_drain(control, now_ns),
            Kind::Close => {
                if self.life.heard_goodbye() {
                    let mut state = self.uplink.state();
                    let _ = ControlDraft::pair(&mut state.out, Kind::Close, 0, 0);
                    drop(state);
                    self.farewell = Farewell::Everything;
                }
                return Err(match control.status() {
                    0 => closed(),
                    _ => said(control, Status::Unavailable),
                });
            }
            Kind::Grant => self.on_grant(control),
            Kind::Cancel => self.on_cancel(control),
            // PONG was heard.
            _ => {}
        }
        Ok(())
    }

    fn on_answer(&mut self, operation: u32, result: Result<()>) {
        let error = result.clone().err();
        let refusal = self.uplink.state().answered(operation, result);
        if let (Refusal::Untold(id), Some(error)) = (&refusal, error) {
            self.tell_unsubscribed(*id, &error);
        }
        self.uplink.report_answer();
    }

    fn on_refusal(&mut self, control: &Control<'_>) {
        let error = said(control, Status::Invalid);
        self.tell(&Event::Refused {
            subject: control.bytes(Field::Subject).unwrap_or_default(),
            status: error.status(),
            why: error.text(),
        });
    }

    /// Of stored publishes that the server would not take.
    pub(super) fn tell_too_large(&self, subjects: &[Box<[u8]>]) {
        for subject in subjects {
            self.tell(&Event::Refused {
                subject,
                status: TOO_LARGE.status(),
                why: TOO_LARGE.text(),
            });
        }
    }

    fn on_event(&mut self, control: &Control<'_>) {
        let count = control.number(Field::Count).unwrap_or(0);
        match control.event() {
            event::GAP => {
                let subscription = control.subscription();
                self.deliveries
                    .note_lost(&self.uplink, &self.writer, subscription, count);
                self.tell(&Event::Gap {
                    subscription,
                    messages: count,
                });
            }
            event::SLOW => self.tell(&Event::Slow { bytes: count }),
            event::LIMIT => {
                let why = sentence_of(control);
                log::write(log::Level::Warn, "link", &why);
                self.tell(&Event::Limit { why: &why });
            }
            _ => {}
        }
    }

    fn on_drain(&mut self, control: &Control<'_>, now_ns: u64) {
        let left_ns = control.number(Field::DeadlineNs).unwrap_or(FOREVER_NS);
        // A little before the server closes.
        self.leave_ns = now_ns.saturating_add(left_ns / 4 * 3);
        let servers = control.bytes(Field::Servers).unwrap_or_default();
        let servers = std::str::from_utf8(servers).unwrap_or_default();
        if !servers.is_empty() {
            self.elsewhere = Some(servers.to_owned());
        }
        self.tell(&Event::Draining);
    }
}

pub(super) fn closed() -> Ending {
    ended(&Fault(
        Status::Disconnected,
        "the server has closed the connection",
    ))
}

fn sentence_of(control: &Control<'_>) -> String {
    let sentence = control.bytes(Field::Sentence).unwrap_or_default();
    let sentence = String::from_utf8_lossy(sentence);
    sentence.replace(char::is_control, " ")
}

/// What an ERROR or CLOSE says, or else its status. That, if this version has it and it is a
/// refusal.
pub(super) fn said(control: &Control<'_>, otherwise: Status) -> Ending {
    let status = match Status::from_number(u32::from(control.status())) {
        Some(Status::Ok) | None => otherwise,
        Some(status) => status,
    };
    let sentence = sentence_of(control);
    let says = match &*sentence {
        "" => status.text(),
        sentence => sentence,
    };
    Error::made(status, format_args!("the server says: {says}"))
}
