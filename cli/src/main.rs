//! The `fastmq` command.
fn main() {}
