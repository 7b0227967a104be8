//! `pub`, `sub`, `request` and `reply` as a shell uses them.

mod support;

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::{Directory, Running, Server, err, fastmq, out, prepare};

fn object(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn what_is_published_is_shown() {
    let server = Server::start();
    let mut reader = server.subscriber(&["greet.*", "--count", "2"]);
    assert_eq!(out(&server.run(&["pub", "greet.world", "hello"])), "");
    assert_eq!(reader.line(), "greet.world hello");
    out(&server.run(&["pub", "other", "nobody"]));
    out(&server.run(&["pub", "greet.you"]));
    assert_eq!(reader.line(), "greet.you ");
    assert_eq!(reader.end().0.code(), Some(0));
}

#[test]
fn each_line_is_a_message_and_raw_lines_come_out_as_they_went_in() {
    let server = Server::start();
    let mut reader = server.subscriber(&["line", "--raw", "--count", "4"]);
    let input = "one\ntwo words\r\n\nno new line at the end";
    out(&server.pipe(&["pub", "line", "-"], input));
    for line in ["one", "two words", "", "no new line at the end"] {
        assert_eq!(reader.line(), line);
    }
    assert!(reader.end().0.success());
}

#[test]
fn json_has_all_that_a_message_has() {
    let server = Server::start();
    let mut reader = server.subscriber(&[">", "--json", "--count", "2"]);
    out(&server.run(&["pub", "a.b", "\"x\"", "-H", "from=me", "--header", "n=a=b"]));
    let expected = json!({
        "subject": "a.b", "payload": "\"x\"", "headers": [["from", "me"], ["n", "a=b"]],
    });
    assert_eq!(object(&reader.line()), expected);
    let mut command = server.command(&["pub", "bytes", "-"]);
    let mut writer = Running::start(command.stdin(Stdio::piped()));
    writer.write_bytes(b"\xff\xfe\n");
    assert!(writer.end().0.success());
    let expected = json!({"subject": "bytes", "payload_base64": "//4="});
    assert_eq!(object(&reader.line()), expected);
}

#[test]
fn a_message_is_repeated_and_paced() {
    let server = Server::start();
    let mut reader = server.subscriber(&["tick", "--count", "20"]);
    out(&server.run(&["pub", "tick", "t", "--count", "20", "--rate", "1000"]));
    for _ in 0..20 {
        assert_eq!(reader.line(), "tick t");
    }
    assert!(reader.end().0.success());
}

#[test]
fn members_of_a_group_share_the_messages() {
    let server = Server::start();
    let all = ["job", "--group", "g", "--count", "1"];
    let (mut first, mut second) = (server.subscriber(&all), server.subscriber(&all));
    out(&server.pipe(&["pub", "job", "-"], "1\n2\n"));
    let mut lines = [first.line(), second.line()];
    lines.sort();
    assert_eq!(lines, ["job 1", "job 2"]);
}

#[test]
fn a_request_is_answered_by_an_echo() {
    let server = Server::start();
    let responder = server.responder(&["echo", "--count", "4"]);
    assert_eq!(out(&server.run(&["request", "echo", "hello"])), "hello\n");
    let answer = out(&server.run(&["request", "echo", "hello", "--json"]));
    assert_eq!(object(&answer), json!({"status": 0, "payload": "hello"}));
    let answers = out(&server.pipe(&["request", "echo", "-"], "a\nb\n"));
    assert_eq!(answers, "a\nb\n");
    assert!(responder.end().0.success());
}

#[test]
fn several_responders_answer_one_request() {
    let server = Server::start();
    let one = server.responder(&["who", "--command", "cat; echo one"]);
    let _two = server.responder(&["who", "--command", "cat; echo two"]);
    let sorted = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.retain(|line| !line.is_empty());
        lines.sort();
        lines
    };
    for many in ["2", "all"] {
        let output = server.run(&["request", "who", "I am ", "--many", many]);
        out(&output);
        assert_eq!(sorted(&output), ["I am one", "I am two"]);
    }
    let output = server.run(&["request", "who", "--many", "1"]);
    assert_eq!(sorted(&output).len(), 1);
    // What came is shown, also if it is too little.
    one.signal("-STOP");
    let output = server.run(&["request", "who", "--many", "2", "--timeout", "0.3"]);
    assert_eq!(output.status.code(), Some(5), "{}", err(&output));
    assert_eq!(sorted(&output), ["two"]);
    one.signal("-CONT");
}

#[test]
fn a_command_answers_and_its_failure_is_the_askers() {
    let server = Server::start();
    let script = "read x; [ \"$x\" = bad ] && { echo no good >&2; exit 3; }; \
                  echo \"$FASTMQ_SUBJECT:$x\"";
    let mut responder = server.responder(&["up.*", "--command", script]);
    assert_eq!(out(&server.run(&["request", "up.1", "x"])), "up.1:x\n\n");
    let failed = server.run(&["request", "up.1", "bad"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(err(&failed).contains("FASTMQ_INTERNAL"), "{}", err(&failed));
    assert!(err(&failed).contains("no good"), "{}", err(&failed));
    assert!(failed.stdout.is_empty());
    responder.told("no good");
    // The others are answered all the same, and the exit code tells.
    let some = server.pipe(&["request", "up.2", "-"], "a\nbad\nb\n");
    assert_eq!(some.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&some.stdout),
        "up.2:a\n\nup.2:b\n\n"
    );
}

#[test]
fn a_command_may_say_more_than_a_pipe_holds_before_it_has_read() {
    let server = Server::start();
    let script = "head -c 300000 /dev/zero | tr '\\0' x; cat";
    let _responder = server.responder(&["large", "--command", script]);
    let input = "y".repeat(200_000) + "\n";
    let answer = out(&server.pipe(&["request", "large", "-"], &input));
    assert_eq!(answer.len(), 500_001);
    assert!(answer.ends_with("y\n"));
}

#[test]
fn a_command_that_takes_too_long_is_killed() {
    let server = Server::start();
    // What it has started holds its outputs open.
    let script = "read x; [ \"$x\" = slow ] && { sleep 1000 & sleep 1000; }; echo \"$x\"";
    let mut responder = server.responder(&["work", "--command", script, "--timeout", "0.3"]);
    let output = server.pipe(&["request", "work", "-"], "slow\nfast\n");
    assert_eq!(output.status.code(), Some(5), "{}", err(&output));
    assert!(err(&output).contains("too long"), "{}", err(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "fast\n\n");
    responder.told("too long");
}

#[test]
fn so_many_commands_run_at_once() {
    let server = Server::start();
    // Each waits until the other one runs, too.
    let script = "read x; touch in.$x; until [ -e in.$((1 - x)) ]; do sleep 0.01; done; echo $x";
    let _responder = server.responder(&["meet", "--command", script, "--jobs", "2"]);
    let mut askers = ["0", "1"].map(|x| {
        let mut command = server.command(&["request", "meet", "-"]);
        let mut asker = Running::start(command.stdin(Stdio::piped()));
        asker.write(&format!("{x}\n"));
        asker
    });
    assert_eq!(askers[0].line(), "0");
    assert_eq!(askers[1].line(), "1");
}

#[test]
fn the_doctor_knows_the_limits() {
    let directory = Directory::new();
    let facts = out(&fastmq(&directory, &["doctor", "--json"]).output().unwrap());
    let facts = object(&facts);
    let limits = [
        "I/O driver",
        "open files",
        "waiting connections",
        "memory",
        "locked memory",
    ];
    for name in limits {
        assert!(
            facts[name].as_str().is_some_and(|it| !it.is_empty()),
            "{name}: {facts}"
        );
    }
    let mut command = fastmq(&directory, &["doctor"]);
    let table = out(&command.env("FASTMQ_DRIVER", "epoll").output().unwrap());
    let line = table
        .lines()
        .find(|line| line.starts_with("I/O driver"))
        .unwrap();
    assert!(line.contains("epoll"), "{line}");
}

#[test]
fn exit_codes_say_what_is_wrong() {
    let server = Server::start();
    let check = |arguments: &[&str], code: i32, said: &str| {
        let output = server.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            err(&output)
        );
        assert!(
            err(&output).contains(said),
            "{arguments:?}: {}",
            err(&output)
        );
    };
    check(&["pub", "a..b", "x"], 2, "a..b");
    check(&["pub", "a.*", "x"], 2, "");
    check(&["sub", ""], 2, "");
    check(&["pub", "a", "x", "-H", "novalue"], 2, "NAME=VALUE");
    check(&["pub", "a", "-", "--count", "2"], 2, "--count");
    check(&["pub", "a", "--count", "0"], 2, "--count");
    check(&["nonsense"], 2, "nonsense");
    check(&["reply", "a", "--jobs", "2"], 2, "--command");
    check(&["request", "a", "--many", "0"], 2, "--many");
    check(&["request", "nobody", "--many", "2"], 6, "nobody");
    check(&["request", "nobody", "x"], 6, "nobody");
    check(&["sub", "quiet", "--timeout", "0"], 5, "");
    check(&["sub", "a", "--server", "gopher://x"], 2, "gopher://x");
    check(
        &["sub", "a", "--server", "unix:/nowhere/s"],
        3,
        "/nowhere/s",
    );
    check(&["sub", "a", "--token-file", "/nowhere/t"], 2, "/nowhere/t");
    let _responder = server.responder(&["slow", "--command", "cat >&2; exec sleep 60"]);
    check(&["request", "slow", "--timeout", "0.05"], 5, "slow");
}

#[test]
fn a_server_with_a_token_lets_in_who_knows_it() {
    let directory = Directory::new();
    let secret = directory.file("token", "s3cret\n");
    let wrong = directory.file("wrong", "guess");
    let server = Server::start_with(&["--token-file", &secret]);
    let check = |arguments: &[&str], code| {
        let output = server.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            err(&output)
        );
    };
    check(&["pub", "a", "x"], 4);
    check(&["pub", "a", "x", "--token-file", &wrong], 4);
    check(&["pub", "a", "x", "--token-file", &secret], 0);
    let mut command = server.command(&["pub", "a", "x"]);
    let output = command.env("FASTMQ_TOKEN_FILE", &secret).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}

#[test]
fn a_reader_that_goes_away_ends_the_pipe_without_a_word() {
    let server = Server::start();
    let program = env!("CARGO_BIN_EXE_fastmq");
    let script = format!("{program} sub 'line' | head -n 1; echo \"${{PIPESTATUS[0]}}\"");
    let mut shell = Command::new("bash");
    prepare(&mut shell, &server.directory);
    shell.env("FASTMQ_URL", &server.url).args(["-c", &script]);
    let mut shell = Running::start(&mut shell);
    shell.told("subscribed to line");
    let mut writer = server.command(&["pub", "line", "-"]);
    let mut writer = Running::start(writer.stdin(Stdio::piped()));
    writer.write("first\n");
    assert_eq!(shell.line(), "line first");
    // `head` is gone, or goes; one of the next messages finds that out.
    let next = shell.out.by_ref();
    std::thread::scope(|scope| {
        let code = scope.spawn(move || next.next().unwrap().unwrap());
        while !code.is_finished() {
            writer.write("more\n");
            std::thread::yield_now();
        }
        assert_eq!(code.join().unwrap(), "0");
    });
    drop(writer);
    assert_eq!(shell.end().2, "");
}

#[test]
fn completions_and_man_pages_name_every_command() {
    let directory = Directory::new();
    let run = |arguments: &[&str]| out(&fastmq(&directory, arguments).output().unwrap());
    let commands = [
        "serve",
        "pub",
        "sub",
        "request",
        "reply",
        "top",
        "config",
        "completions",
        "man",
    ];
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert!(commands.iter().all(|name| script.contains(name)), "{shell}");
    }
    let page = run(&["man"]);
    assert!(page.contains(".TH fastmq 1"), "{page}");
    for name in commands {
        assert!(
            page.contains(&format!("fastmq\\-{name}(1)")),
            "{name}: {page}"
        );
        assert!(run(&["man", name]).contains("SYNOPSIS"), "{name}");
    }
    let unknown = fastmq(&directory, &["man", "nonsense"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}
