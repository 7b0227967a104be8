//! Where a value comes from, what a wrong one says, and the directories of a server.

mod support;

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Output;

use serde_json::{Value, json};
use support::{Directory, Running, Server, err, fastmq, out};

/// What `fastmq config --json` says of a key: value and source.
fn setting(output: &Output, key: &str) -> (Value, String) {
    for line in out(output).lines() {
        let object: Value = serde_json::from_str(line).unwrap();
        if object["key"] == key {
            let source = object["source"].as_str().unwrap().to_owned();
            return (object["value"].clone(), source);
        }
    }
    panic!("{key} is not shown: {}", out(output));
}

fn config(directory: &Directory, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut all = vec!["config", "--json"];
    all.extend(arguments);
    let mut command = fastmq(directory, &all);
    command.envs(variables.iter().copied());
    command.output().unwrap()
}

#[test]
fn a_flag_goes_before_a_variable_before_the_file_before_the_default() {
    let directory = Directory::new();
    let key = "drain_seconds";
    let variable = [("FASTMQ_DRAIN_SECONDS", "3")];
    let check = |arguments: &[&str], variables: &[_], value: u64, source: &str| {
        let shown = setting(&config(&directory, arguments, variables), key);
        assert_eq!(shown, (json!(value), source.to_owned()));
    };
    check(&[], &[], 10, "default");
    check(&[], &[("FASTMQ_DRAIN_SECONDS", "")], 10, "default");
    fs::create_dir(directory.path(".fastmq")).unwrap();
    directory.file(".fastmq/fastmq.toml", "# Mine.\n\ndrain_seconds = 2\n");
    check(&[], &[], 2, ".fastmq/fastmq.toml:3");
    check(&[], &variable, 3, "FASTMQ_DRAIN_SECONDS");
    check(&["--drain-seconds", "4"], &variable, 4, "--drain-seconds");
    // Another root has another file.
    let root = directory.path("other").display().to_string();
    check(&["--root", &root], &[], 10, "default");
    check(&[], &[("WORK_ROOT", &root)], 10, "default");
}

#[test]
fn defaults_depend_on_the_root_and_the_profile() {
    let directory = Directory::new();
    let check = |arguments: &[&str], key, value: Value, source: &str| {
        let shown = setting(&config(&directory, arguments, &[]), key);
        assert_eq!(shown, (value, source.to_owned()), "{key}");
    };
    let tcp = "tcp://127.0.0.1:4860";
    check(&[], "data_root", json!(".fastmq/data"), "default");
    check(
        &[],
        "listen",
        json!([tcp, "unix:.fastmq/fastmq.sock"]),
        "default",
    );
    check(&[], "url", json!(tcp), "default");
    check(&[], "connections_max", json!(65_536), "default");
    check(&[], "token_file", Value::Null, "default");
    check(&["--root", "r"], "data_root", json!("r/data"), "default");
    check(
        &["--root", "r"],
        "url",
        json!("unix:r/fastmq.sock"),
        "default",
    );
    let small = ["--profile", "small"];
    check(&small, "connections_max", json!(64), "profile small");
    check(&small, "memory_max", json!(4 << 20), "profile small");
    check(&small, "drain_seconds", json!(10), "default");
    let more = ["--profile", "small", "--memory-max", "8 MiB"];
    check(&more, "memory_max", json!(8 << 20), "--memory-max");
}

#[test]
fn what_is_wrong_names_its_place() {
    let directory = Directory::new();
    let check = |arguments: &[&str], variables: &[(&str, &str)], said: &[&str]| {
        for command in ["config", "serve"] {
            let mut all = vec![command];
            all.extend(arguments);
            let mut command = fastmq(&directory, &all);
            let output = command.envs(variables.iter().copied()).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{}", err(&output));
            for part in said {
                assert!(err(&output).contains(part), "{part}: {}", err(&output));
            }
        }
    };
    check(
        &["--drain-seconds", "soon"],
        &[],
        &["--drain-seconds", "`soon`", "3600"],
    );
    check(
        &[],
        &[("FASTMQ_MEMORY_MAX", "all")],
        &["FASTMQ_MEMORY_MAX", "`all`", "KiB"],
    );
    check(
        &[],
        &[("FASTMQ_INSECURE", "perhaps")],
        &["FASTMQ_INSECURE", "perhaps"],
    );
    fs::create_dir(directory.path(".fastmq")).unwrap();
    directory.file(".fastmq/fastmq.toml", "insecure = false\nlisten_to = 'x'\n");
    check(
        &[],
        &[],
        &[".fastmq/fastmq.toml:2: ", "`listen_to`", "listen"],
    );
    directory.file(".fastmq/fastmq.toml", "\nconnections_max = 0\n");
    check(
        &[],
        &[],
        &[".fastmq/fastmq.toml:2: connections_max: ", "`0`"],
    );
    directory.file(".fastmq/fastmq.toml", "listen = [\n");
    check(&[], &[], &[".fastmq/fastmq.toml:"]);
}

#[test]
fn a_client_reads_no_file_of_a_directory_that_nobody_has_named() {
    let server = Server::start();
    let file = server
        .directory
        .file(".fastmq/fastmq.toml", "url = 'unix:/nowhere/s'\n");
    out(&server.run(&["pub", "a", "x"]));
    let mut command = fastmq(&server.directory, &["pub", "a", "x", "--root", ".fastmq"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    assert!(err(&output).contains("/nowhere/s"), "{}", err(&output));
    fs::write(file, "").unwrap();
    fs::rename(
        server.directory.path("s"),
        server.directory.path(".fastmq/fastmq.sock"),
    )
    .unwrap();
    let output = fastmq(&server.directory, &["pub", "a", "x", "--root", ".fastmq"]).output();
    out(&output.unwrap());
}

#[test]
fn a_small_server_serves() {
    let server = Server::start_with(&["--profile", "small"]);
    let _responder = server.responder(&["echo"]);
    assert_eq!(out(&server.run(&["request", "echo", "hello"])), "hello\n");
    let large = "x".repeat(100_000) + "\n";
    let output = server.pipe(&["pub", "large", "-"], &large);
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    assert!(err(&output).contains("larger"), "{}", err(&output));
}

#[test]
fn a_small_server_needs_no_more_than_16_mb() {
    let directory = Directory::new();
    let program = env!("CARGO_BIN_EXE_fastmq");
    let script = format!("ulimit -d 16384; exec {program} serve --listen unix:s --profile small");
    let mut shell = std::process::Command::new("bash");
    support::prepare(&mut shell, &directory);
    let mut running = Running::start(shell.args(["-c", &script]));
    assert_eq!(running.line(), "listening at unix:s");
    let server = Server {
        directory,
        running,
        url: "unix:s".to_owned(),
    };
    let mut readers = [(); 10].map(|()| server.subscriber(&["news", "--raw"]));
    let payload = "x".repeat(500);
    out(&server.run(&["pub", "news", &payload, "--count", "2000"]));
    for reader in &mut readers {
        for _ in 0..2000 {
            assert_eq!(reader.line(), payload);
        }
    }
}

#[test]
fn one_server_has_a_data_root_at_a_time() {
    let server = Server::start();
    let mode = fs::metadata(server.directory.path(".fastmq/data")).unwrap();
    assert_eq!(mode.mode() & 0o777, 0o700);
    let other = format!("unix:{}", server.directory.path("other").display());
    let arguments = ["serve", "--listen", &other];
    let output = fastmq(&server.directory, &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let says = format!("process {}", server.running.id());
    assert!(err(&output).contains(&says), "{}", err(&output));
    assert!(err(&output).contains(".fastmq/data"), "{}", err(&output));
    assert!(!server.directory.path("other").exists());
    // One that is killed leaves its socket and nothing that would be in the way.
    let Server {
        directory,
        running,
        url,
    } = server;
    running.signal("-KILL");
    running.end();
    assert!(directory.path("s").exists());
    let mut again = Running::start(&mut fastmq(&directory, &["serve", "--listen", &url]));
    assert_eq!(again.line(), format!("listening at {url}"));
    again.signal("-TERM");
    assert!(again.end().0.success());
    assert!(!directory.path("s").exists());
}

#[test]
fn a_root_that_cannot_be_written_to_is_named() {
    let directory = Directory::new();
    let file = directory.file("file", "");
    let check = |arguments: &[&str], variable: (&str, &str), said: &[&str]| {
        let mut all = vec!["serve", "--listen", "unix:s"];
        all.extend(arguments);
        let output = fastmq(&directory, &all)
            .env(variable.0, variable.1)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", err(&output));
        for part in said {
            assert!(err(&output).contains(part), "{part}: {}", err(&output));
        }
        assert!(!directory.path("s").exists());
    };
    check(&["--root", &file], ("A", "b"), &[&file, "WORK_ROOT"]);
    check(
        &[],
        ("WORK_ROOT", &format!("{file}/x")),
        &[&file, "WORK_ROOT"],
    );
    check(
        &["--data-root", &file],
        ("A", "b"),
        &[&file, "WORK_DATA_ROOT"],
    );
    // The superuser may write anywhere, but not here.
    check(
        &["--root", "/proc/self/fastmq"],
        ("A", "b"),
        &["/proc/self/fastmq"],
    );
    fs::set_permissions(directory.path("."), Permissions::from_mode(0o500)).unwrap();
    let is_superuser = fs::write(directory.path("try"), "").is_ok();
    if !is_superuser {
        check(&[], ("A", "b"), &[".fastmq", "denied"]);
    }
}

#[test]
fn an_address_in_use_is_named() {
    let directory = Directory::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", taken.local_addr().unwrap());
    let output = fastmq(&directory, &["serve", "--listen", &url])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).contains(&url), "{}", err(&output));
    assert!(err(&output).contains("in use"), "{}", err(&output));
}

#[test]
fn a_server_may_have_as_many_files_as_it_is_allowed() {
    let directory = Directory::new();
    let program = env!("CARGO_BIN_EXE_fastmq");
    let script = format!("ulimit -Sn 64; exec {program} serve --listen unix:s");
    let mut shell = std::process::Command::new("bash");
    support::prepare(&mut shell, &directory);
    let mut server = Running::start(shell.args(["-c", &script]));
    assert_eq!(server.line(), "listening at unix:s");
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let line = limits
        .lines()
        .find(|it| it.starts_with("Max open files"))
        .unwrap();
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    assert_ne!(numbers[0], "64", "{line}");
}
