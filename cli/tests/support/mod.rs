//! The real command and a server of its own, in a directory that goes with the test.

#![allow(
    dead_code,
    reason = "each test program compiles this file and uses some of it"
)]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that is removed with the test.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "fmq-cli-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file in it, and its path.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The command in a directory, without what the surroundings would say to it.
pub(crate) fn fastmq(directory: &Directory, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fastmq"));
    prepare(&mut command, directory);
    command.args(arguments);
    command
}

/// The surroundings of the command.
pub(crate) fn prepare(command: &mut Command, directory: &Directory) {
    for (name, _) in std::env::vars() {
        let is_ours = name.starts_with("FASTMQ_") && name != "FASTMQ_DRIVER";
        if is_ours || name.starts_with("WORK_") || name.starts_with("LISTEN_") {
            command.env_remove(name);
        }
    }
    command
        .env_remove("NOTIFY_SOCKET")
        .current_dir(&directory.0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
}

/// A command that runs.
pub(crate) struct Running {
    child: Child,
    pub(crate) out: Lines<BufReader<ChildStdout>>,
    pub(crate) err: Lines<BufReader<ChildStderr>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let err = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, out, err }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.write_bytes(text.as_bytes());
    }

    pub(crate) fn write_bytes(&mut self, bytes: &[u8]) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(bytes).unwrap();
    }

    /// The next line of standard output.
    pub(crate) fn line(&mut self) -> String {
        self.out.next().expect("it says something more").unwrap()
    }

    /// Reads standard error up to a line that contains `part`, and gives that line.
    pub(crate) fn told(&mut self, part: &str) -> String {
        let mut before = Vec::new();
        for line in self.err.by_ref() {
            let line = line.unwrap();
            if line.contains(part) {
                return line;
            }
            before.push(line);
        }
        panic!("it has not said `{part}` but {before:?}");
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end, and gives what is left of both outputs.
    pub(crate) fn end(mut self) -> (ExitStatus, String, String) {
        drop(self.child.stdin.take());
        let out: Vec<String> = self.out.by_ref().map(Result::unwrap).collect();
        let err: Vec<String> = self.err.by_ref().map(Result::unwrap).collect();
        let status = self.child.wait().unwrap();
        (status, out.join("\n"), err.join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server at a Unix socket.
pub(crate) struct Server {
    pub(crate) directory: Directory,
    pub(crate) running: Running,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let directory = Directory::new();
        let url = format!("unix:{}", directory.path("s").display());
        let mut all = vec!["serve", "--listen", &url];
        all.extend(arguments);
        let mut running = Running::start(&mut fastmq(&directory, &all));
        assert_eq!(running.line(), format!("listening at {url}"));
        Self {
            directory,
            running,
            url,
        }
    }

    /// A command that knows this server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = fastmq(&self.directory, arguments);
        command.env("FASTMQ_URL", &self.url);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command with something on its standard input.
    pub(crate) fn pipe(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    pub(crate) fn start_command(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// A subscriber that has subscribed.
    pub(crate) fn subscriber(&self, arguments: &[&str]) -> Running {
        let mut all = vec!["sub"];
        all.extend(arguments);
        let mut running = self.start_command(&all);
        running.told("subscribed to ");
        running
    }

    /// A responder that answers.
    pub(crate) fn responder(&self, arguments: &[&str]) -> Running {
        let mut all = vec!["reply"];
        all.extend(arguments);
        let mut running = self.start_command(&all);
        running.told("answering ");
        running
    }
}

/// Standard output of a command that is fine.
pub(crate) fn out(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", err(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The mode of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
