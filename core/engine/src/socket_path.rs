//! Where the socket of `shm:NAME` is.
//!
//! In the root that the program has named, else in `$WORK_ROOT`, else in `$XDG_RUNTIME_DIR/fastmq`,
//! else in a directory of the user's own under the temporary directory. `shm:/path` says it itself.

use std::env;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fastmq_driver::shared::current_user;

/// Longest path of a Unix socket.
pub(crate) const PATH_BYTES_MAX: usize = 107;

/// The path of what follows `shm:`.
pub(crate) fn of(name: &str) -> Result<PathBuf, &'static str> {
    let path = match name {
        "" => return Err("the name is missing: shm:NAME or shm:/path"),
        path if path.starts_with('/') => PathBuf::from(path),
        "." | ".." => return Err("this is no name: shm:NAME or shm:/path"),
        name if name.contains('/') => return Err("a name has no slash: shm:NAME or shm:/path"),
        name => directory().join(name),
    };
    match path.as_os_str().len() {
        0..=PATH_BYTES_MAX if name.contains('\0') => Err("the path has a zero byte"),
        0..=PATH_BYTES_MAX => Ok(path),
        _ => Err("the path has more than 107 bytes"),
    }
}

/// What the program has named.
static ROOT: OnceLock<PathBuf> = OnceLock::new();

/// Has named sockets be in this directory, as `$WORK_ROOT` would: for a program to which its user
/// can name a root otherwise. The first call counts, for the whole process.
pub fn name_root(root: PathBuf) {
    let _is_first = ROOT.set(root);
}

fn directory() -> PathBuf {
    if let Some(root) = ROOT.get() {
        return root.clone();
    }
    let said = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(root) = said("WORK_ROOT") {
        return root.into();
    }
    match said("XDG_RUNTIME_DIR") {
        Some(root) => Path::new(&root).join("fastmq"),
        None => env::temp_dir().join(format!("fastmq-{}", current_user())),
    }
}

/// Makes the directory of a named socket if it is missing. Whoever else could put a socket there
/// could pretend to be the server, so it is this user's alone.
pub(crate) fn prepare(name: &str, path: &Path) -> std::io::Result<()> {
    let Some(directory) = path.parent().filter(|_| !name.starts_with('/')) else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    check(name, path)
}

/// Refuses a named socket whose directory others can change.
pub(crate) fn check(name: &str, path: &Path) -> std::io::Result<()> {
    let Some(directory) = path.parent().filter(|_| !name.starts_with('/')) else {
        return Ok(());
    };
    // Of its own, and no way to it but by its name.
    let it = fs::symlink_metadata(directory)?;
    let is_own = it.is_dir() && it.uid() == current_user() && it.mode() & 0o022 == 0;
    if is_own {
        return Ok(());
    }
    let says = format!("{} is not this user's alone", directory.display());
    Err(std::io::Error::new(
        std::io::ErrorKind::PermissionDenied,
        says,
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_name_is_one_name_and_a_path_is_itself() {
        assert_eq!(of("/run/x"), Ok(PathBuf::from("/run/x")));
        assert_eq!(of("mq").unwrap().file_name().unwrap(), "mq");
        assert!(of("mq").unwrap().is_absolute() || env::var_os("WORK_ROOT").is_some());
        for wrong in ["", ".", "..", "a/b", "../x", "a\0"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        assert!(of(&format!("/{}", "x".repeat(107))).is_err());
        assert!(of(&format!("/{}", "x".repeat(106))).is_ok());
    }

    #[test]
    fn a_directory_that_others_can_change_is_refused() {
        let directory = env::temp_dir().join(format!("fastmq-path-{}", std::process::id()));
        let path = directory.join("mq");
        prepare("mq", &path).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        check("mq", &path).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        let error = prepare("mq", &path).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        // Who names the path has looked himself.
        check(path.to_str().unwrap(), &path).unwrap();
        fs::remove_dir(&directory).unwrap();
    }
}
