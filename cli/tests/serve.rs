//! `fastmq serve` as a user runs it.

mod support;

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;

use support::{Directory, Running, Server, err, fastmq, out, prepare};

#[test]
fn it_listens_until_it_is_asked_to_end() {
    for signal in ["-TERM", "-INT"] {
        let directory = Directory::new();
        let socket = directory.path("s");
        let url = format!("unix:{}", socket.display());
        let urls = ["--listen", &url, "--listen", "tcp://127.0.0.1:0"];
        let arguments = [&["serve"], &urls[..], &["--shards", "2"]].concat();
        let mut server = Running::start(&mut fastmq(&directory, &arguments));
        assert_eq!(server.line(), format!("listening at {url}"));
        assert!(server.line().starts_with("listening at tcp://127.0.0.1:"));
        drop(UnixStream::connect(&socket).unwrap());
        server.signal(signal);
        assert_eq!(server.line(), "draining");
        assert!(server.end().0.success());
        assert!(!socket.exists());
    }
}

#[test]
fn what_it_cannot_do_it_says() {
    let directory = Directory::new();
    let check = |arguments: &[&str], expected: &str| {
        let all = [&["serve"], arguments].concat();
        let output = fastmq(&directory, &all).output().unwrap();
        assert!(!output.status.success());
        assert!(err(&output).contains(expected), "{}", err(&output));
    };
    check(&["--listen", "tcp://0.0.0.0:0"], "insecure");
    check(&["--listen", "nonsense"], "nonsense");
    check(&["--token-file", "/nowhere/token"], "/nowhere/token");
    let empty = directory.file("token", " \n");
    check(&["--token-file", &empty], "is empty");
}

#[test]
fn a_signal_has_it_read_its_configuration_again() {
    let directory = Directory::new();
    let (first, second) = (directory.file("t1", "one"), directory.file("t2", "two"));
    fs::create_dir(directory.path(".fastmq")).unwrap();
    let write = |text: &str| directory.file(".fastmq/fastmq.toml", text);
    write("listen = 'unix:s'\ntoken_file = '../t1'\n");
    let mut server = Running::start(&mut fastmq(&directory, &["serve"]));
    assert_eq!(server.line(), "listening at unix:s");
    let publish = |token: &str, code| {
        let arguments = ["pub", "a", "x", "--server", "unix:s", "--token-file", token];
        let output = fastmq(&directory, &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", err(&output));
    };
    publish(&first, 0);
    // Who is connected stays, whatever the token is afterwards.
    let arguments = [
        "sub",
        "a",
        "--server",
        "unix:s",
        "--token-file",
        &first,
        "--raw",
    ];
    let mut reader = Running::start(&mut fastmq(&directory, &arguments));
    reader.told("subscribed");
    write("listen = 'unix:other'\ntoken_file = '../t2'\n");
    server.signal("-HUP");
    server.told("listen is unix:other from the next start on");
    assert_eq!(server.line(), "reloaded");
    publish(&first, 4);
    publish(&second, 0);
    assert_eq!(reader.line(), "x");
    write("listen = 'unix:s'\nnonsense = 1\n");
    server.signal("-HUP");
    let said = server.told("all stays as it is");
    assert!(said.contains(".fastmq/fastmq.toml:2: "), "{said}");
    assert_eq!(server.line(), "reloaded");
    publish(&second, 0);
    server.signal("-TERM");
    assert_eq!(server.line(), "draining");
}

#[test]
fn a_service_manager_is_told_what_happens() {
    let directory = Directory::new();
    let path = directory.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let heard = || {
        let mut buffer = [0; 512];
        let size = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..size].to_vec()).unwrap()
    };
    let mut command = fastmq(&directory, &["serve", "--listen", "unix:s"]);
    let mut server = Running::start(command.env("NOTIFY_SOCKET", &path));
    assert_eq!(heard(), "READY=1\nSTATUS=listening at unix:s");
    server.signal("-HUP");
    assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(heard(), "READY=1");
    server.signal("-TERM");
    assert!(heard().starts_with("STOPPING=1\n"));
    assert_eq!(server.line(), "listening at unix:s");
}

/// Listens in Python, and becomes the server with that socket as descriptor 3.
const ACTIVATE: &str = "
import os, socket, sys
kind = socket.SOCK_STREAM if sys.argv[1] == 'stream' else socket.SOCK_DGRAM
made = socket.socket(socket.AF_UNIX, kind)
made.bind('activated')
if kind == socket.SOCK_STREAM: made.listen()
os.dup2(made.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid() + int(sys.argv[2])))
os.execv(sys.argv[3], sys.argv[3:])
";

fn activated(directory: &Directory, kind: &str, other: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("python3");
    prepare(&mut command, directory);
    command.args(["-c", ACTIVATE, kind, other, env!("CARGO_BIN_EXE_fastmq")]);
    command.arg("serve").args(arguments);
    command
}

#[test]
fn it_takes_the_sockets_that_it_is_started_with() {
    let directory = Directory::new();
    let mut running = Running::start(&mut activated(&directory, "stream", "0", &[]));
    assert_eq!(running.line(), "listening at unix:activated");
    let url = "unix:activated".to_owned();
    let server = Server {
        directory,
        running,
        url,
    };
    let _responder = server.responder(&["echo"]);
    assert_eq!(out(&server.run(&["request", "echo", "hello"])), "hello\n");
    server.running.signal("-TERM");
    // Its maker's file stays.
    let Server {
        directory, running, ..
    } = server;
    assert!(running.end().0.success());
    assert!(directory.path("activated").exists());
}

#[test]
fn sockets_that_are_for_others_or_of_no_use_are_left_alone() {
    let directory = Directory::new();
    let listen = ["--listen", "unix:mine"];
    let mut server = Running::start(&mut activated(&directory, "stream", "1", &listen));
    assert_eq!(server.line(), "listening at unix:mine");
    server.signal("-TERM");
    assert_eq!(server.line(), "draining");
    drop(server);
    fs::remove_file(directory.path("activated")).unwrap();
    let output = activated(&directory, "datagram", "0", &[])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(
        err(&output).contains("no stream socket"),
        "{}",
        err(&output)
    );
}

#[test]
fn a_named_socket_is_in_the_root_that_a_flag_or_a_variable_names() {
    let directory = Directory::new();
    let root = directory.path("root").display().to_string();
    let start = |by_flag: bool, arguments: &[&str]| {
        let flag = ["--root", &root];
        let all = match by_flag {
            true => [arguments, &flag].concat(),
            false => arguments.to_vec(),
        };
        let mut command = fastmq(&directory, &all);
        if !by_flag {
            command.env("WORK_ROOT", &root);
        }
        command.env("XDG_RUNTIME_DIR", directory.path("elsewhere"));
        command
    };
    for by_flag in [true, false] {
        let serve = ["serve", "--listen", "shm:mq"];
        let mut server = Running::start(&mut start(by_flag, &serve));
        assert_eq!(server.line(), "listening at shm:mq");
        assert!(directory.path("root").join("mq").exists());
        let publish = ["pub", "a", "x", "--server", "shm:mq"];
        let output = start(!by_flag, &publish).output().unwrap();
        assert!(output.status.success(), "{}", err(&output));
        server.signal("-TERM");
        assert_eq!(server.line(), "draining");
        assert!(server.end().0.success());
    }
    assert!(!directory.path("elsewhere").exists());
}

#[test]
fn a_server_says_where_else_its_clients_may_connect() {
    let directory = Directory::new();
    let serve = |name: &str, more: &[&str]| {
        let (url, data) = (format!("unix:{name}"), format!("data-{name}"));
        let arguments = [
            "serve",
            "--listen",
            &url,
            "--data-root",
            &data,
            "--name",
            name,
        ];
        let all = [&arguments, more].concat();
        let mut server = Running::start(&mut fastmq(&directory, &all));
        assert_eq!(server.line(), format!("listening at {url}"));
        server
    };
    let first = serve("one", &["--servers", "unix:two", "--servers", "unix:three"]);
    let second = serve("two", &[]);
    let subscribe = ["sub", "news", "--server", "unix:one"];
    let mut reader = Running::start(&mut fastmq(&directory, &subscribe));
    reader.told("subscribed to ");
    first.signal("-KILL");
    assert!(!first.end().0.success());
    reader.told("connected again, to two");
    second.signal("-TERM");
    assert!(second.end().0.success());
    let wrong = ["serve", "--listen", "unix:s", "--servers", "nonsense"];
    let output = fastmq(&directory, &wrong).output().unwrap();
    assert!(!output.status.success());
    assert!(err(&output).contains("nonsense"), "{}", err(&output));
}
