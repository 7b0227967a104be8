//! Remote clients: against a scripted peer, over a simulated network by seed, and over the kernel.

#[path = "../steps/mod.rs"]
mod steps;

mod abilities;
mod bounds;
mod driving;
mod hostile;
mod many;
mod peer;
mod promises;
mod real;
mod runs;
mod seeds;
mod world;
