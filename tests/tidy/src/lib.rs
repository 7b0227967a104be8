//! House rules a machine can check.
