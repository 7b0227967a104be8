//! The house rules that a machine can check.
//!
//! Each rule is a function from a [`tree::Tree`] to its [`tree::Finding`]s, so that the same
//! function judges the repository (`tests/repository.rs`) and a bad sample that it must catch (the
//! tests beside it). Exceptions are lists in the code, each with its reason.
//! Not here: what the compiler, clippy and rustfmt already see.
#![forbid(unsafe_code)]

pub mod code;
pub mod documents;
pub mod manifests;
pub mod places;
pub mod sources;
pub mod tree;
