//! The promises of the embedded broker, a module for each; one program, because linking the engine
//! takes longer than most of them.
//!
//! Not here: what counts in the whole process or fills the machine (`load`, `memory`, `realtime`,
//! `simulation`, `warm_path`), servers (`server`), remote clients (`link`).

#![forbid(unsafe_code)]

#[path = "../steps/mod.rs"]
mod steps;

mod any;
mod captured;
mod claim;
mod close;
mod dispatch;
mod group;
mod inline;
mod key_shared;
mod last_value;
mod latest;
mod many;
mod presence;
mod publish;
mod queue;
mod request;
mod sequence;
mod statistics;
mod threads;
mod timestamps;
mod wide;
