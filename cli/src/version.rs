//! `fastmq version`.

use std::io::{self, Write};

/// Writes the versions of the library and its ABI.
pub(crate) fn run(out: &mut dyn Write) -> io::Result<()> {
    let (major, minor) = (fastmq::ABI >> 16, fastmq::ABI & 0xffff);
    writeln!(out, "fastmq {} (abi {major}.{minor})", fastmq::VERSION)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_one_line() {
        let mut out = Vec::new();
        super::run(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with(&format!("fastmq {} (abi ", fastmq::VERSION)),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }
}
