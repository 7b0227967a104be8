//! The directories of a server: its root, for the socket that it makes by itself, and its data
//! root, which one server has at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::configuration::Configuration;
use crate::failure::{Failure, Outcome, code};

const LOCK_NAME: &str = "lock";
/// Bytes of a lock file that are looked at: a number.
const HOLDER_BYTES: u64 = 32;

/// That no other server has the data root; the kernel gives it back with the process.
#[derive(Debug)]
pub(crate) struct DataRoot {
    _lock: File,
}

impl DataRoot {
    /// Makes the directories, for this user alone, and takes the data root.
    ///
    /// # Errors
    /// They cannot be made or written to; another server has the data root.
    pub(crate) fn take(configuration: &Configuration) -> Outcome<Self> {
        let root = configuration.path("root");
        make(&root).map_err(|error| wrong(&root, "--root or WORK_ROOT", &error))?;
        let data = configuration.path("data_root");
        let explain = |error: io::Error| wrong(&data, "--data-root or WORK_DATA_ROOT", &error);
        make(&data).map_err(explain)?;
        let path = data.join(LOCK_NAME);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).mode(0o600);
        let mut lock = options.open(&path).map_err(explain)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(&data, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(explain(error)),
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(explain)?;
        Ok(Self { _lock: lock })
    }
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn wrong(path: &Path, by: &str, error: &io::Error) -> Failure {
    let path = path.display();
    let says = format!("{path}: {error}; name a directory that you may write to by {by}");
    Failure::usage(says)
}

fn taken(data: &Path, lock: &mut File) -> Failure {
    let mut holder = String::new();
    let _ = lock.take(HOLDER_BYTES).read_to_string(&mut holder);
    let whom = match holder.trim() {
        "" => "another server".to_owned(),
        holder => format!("another server, process {holder}"),
    };
    let says = format!(
        "{}: {whom} has it; give this one a root of its own by --root or WORK_ROOT",
        data.display()
    );
    Failure::new(code::OTHER, says)
}
