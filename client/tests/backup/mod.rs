//! `backup` and `restore --check`.

use std::{cell::RefCell, fs, io::Write as _, process::Stdio};

use super::{PATIENCE, command, run, stderr, top::terminal::Terminal, world::World};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_a_file_that_says_what_is_in_it() {
    let world = World::start().await;
    world.says(&["push", "ads/shown", "counter", "add", "3"]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("backup");
    let name = file.to_str().expect("text");

    let said = world.says(&["backup", name]).await;
    assert!(
        said.starts_with(&format!("{name}: revision ")) && said.contains(", 1 rows, 0 members, 1 namespaces"),
        "{said}"
    );
    let checked = world.says(&["restore", "--check", name]).await;
    assert_eq!(checked, said.replace(": revision", " is whole: revision"));
    let object = world.json(&["restore", "--check", name]).await.remove(0);
    assert_eq!((&object["rows"], &object["file"]), (&1.into(), &name.into()));
    assert_eq!(object["state_hash"].as_str().map(str::len), Some(32));
    let names: Vec<_> = fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(names.len(), 1, "{names:?}");

    let (before, again) = (fs::read(&file).expect("a file"), run(world.command(&["backup", name])).await);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("is there already"), "{}", stderr(&again));
    assert!(fs::read(&file).expect("a file") == before, "it was left as it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_through_a_pipe_and_nothing_else_does() {
    let world = World::start().await;
    world.says(&["push", "ads/shown", "counter", "add", "3"]).await;
    let output = run(world.command(&["backup", "-"])).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).starts_with("revision "), "{}", stderr(&output));
    assert!(!output.stderr.iter().any(|byte| matches!(byte, b'\r' | 0x1b)), "{}", stderr(&output));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("backup");
    fs::write(&file, &output.stdout).expect("written");
    let name = file.to_str().expect("text");
    assert!(world.says(&["restore", "--check", name]).await.contains("is whole"));

    for (content, says) in [
        (output.stdout[..output.stdout.len() - 2].to_vec(), "cut short"),
        ([&output.stdout[..16], &[9], &output.stdout[17..]].concat(), "format 9"),
        (b"{}".to_vec(), "no backup of Dormouse"),
    ] {
        fs::write(&file, content).expect("written");
        let refused = run(world.command(&["restore", "--check", name])).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains(says), "{}", stderr(&refused));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_relay_there_is_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("backup");
    let output = run(command("http://127.0.0.1:1", &["backup", file.to_str().expect("text")])).await;
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

/// The file is a pipe that is filled slowly, so that there is something to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_bar_and_the_result_has_none() {
    let world = World::start().await;
    let whole = run(world.command(&["backup", "-"])).await.stdout;
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("backup");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    let (mut terminal, program) = Terminal::open(80, 24);
    let mut checking = world.command(&["restore", "--check", pipe.to_str().expect("text")]);
    let checking =
        checking.env("TERM", "xterm").stdout(Stdio::piped()).stderr(program).spawn().expect("it runs");
    let file = tokio::task::spawn_blocking(move || fs::OpenOptions::new().write(true).open(pipe));
    let file = RefCell::new(file.await.expect("no panic").expect("its reader is there"));
    let left = RefCell::new(whole.as_slice());
    let write_one = || {
        let (one, rest) = left.borrow().split_at(1);
        file.borrow_mut().write_all(one).expect("somebody reads");
        *left.borrow_mut() = rest;
    };
    terminal.until_asked(write_one, |text| text.contains("checking [")).await;
    file.borrow_mut().write_all(left.borrow()[..].as_ref()).expect("somebody reads");
    drop(file);
    let output = tokio::time::timeout(PATIENCE, checking.wait_with_output()).await.expect("it ends");
    let said = String::from_utf8(output.expect("it runs").stdout).expect("text");
    assert!(said.contains("is whole") && said.lines().count() == 1, "{said:?}");
    assert!(!said.contains(['\r', '\x1b']), "{said:?}");
    assert!(terminal.text.contains('\r'), "redrawn in place: {:?}", terminal.text);
}

/// It is `dormouse-relay` that knows where the log is; where that is not found, the command says so.
#[tokio::test(flavor = "multi_thread")]
async fn restore_hands_the_file_to_the_relays_own_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("dormouse-relay");
    fs::write(&program, "#!/bin/sh\necho \"$DORMOUSE_DATA_DIR: $@\"\n").expect("written");
    let executable = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(&program, executable).expect("its own file");
    let copy = folder.path().join("dormouse");
    fs::copy(env!("CARGO_BIN_EXE_dormouse"), &copy).expect("copied");
    let mut beside = tokio::process::Command::new(&copy);
    beside
        .args(["restore", "a backup"])
        .env_clear()
        .env("DORMOUSE_DATA_DIR", "/data")
        .env("PATH", "/bin:/usr/bin");
    let output = run(beside).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/data: restore a backup\n", "{}", stderr(&output));

    fs::remove_file(program).expect("it was there");
    let mut alone = tokio::process::Command::new(copy);
    alone.args(["restore", "a backup"]).env_clear().env("PATH", folder.path());
    let output = run(alone).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("dormouse-relay restore a backup"), "{}", stderr(&output));
}
