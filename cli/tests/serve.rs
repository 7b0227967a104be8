//! `fastmq serve` as a user runs it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

fn fastmq(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_fastmq"))
        .arg("serve")
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("fmq-cli-{}-{name}", std::process::id()))
}

#[test]
fn it_listens_until_it_is_asked_to_end() {
    let socket = path("serve");
    let url = format!("unix:{}", socket.display());
    let urls = ["--listen", &url, "--listen", "tcp://127.0.0.1:0"];
    let mut child = fastmq(&[&urls[..], &["--shards", "2"]].concat());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), format!("listening at {url}"));
    assert!(next().starts_with("listening at tcp://127.0.0.1:"));
    drop(UnixStream::connect(&socket).unwrap());
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(next(), "draining");
    assert!(child.wait().unwrap().success());
    assert!(!socket.exists());
}

#[test]
fn what_it_cannot_do_it_says() {
    let check = |arguments: &[&str], expected: &str| {
        let mut child = fastmq(arguments);
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(said.contains(expected), "{said}");
    };
    check(&["--listen", "tcp://0.0.0.0:0"], "insecure");
    check(&["--listen", "nonsense"], "`nonsense` is no address");
    check(&["--token-file", "/nowhere/token"], "/nowhere/token");
    let empty = path("token");
    fs::write(&empty, b" \n").unwrap();
    check(&["--token-file", &empty.display().to_string()], "is empty");
    fs::remove_file(&empty).unwrap();
}
