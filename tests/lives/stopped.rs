//! A relay that is stopped in the middle of a call and goes on later, as in a frozen virtual machine.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::relay::{Outcome, PATIENCE, RelayProcess};

/// Both times that a call has are shorter than the relay stands still.
const TIMES: &[(&str, &str)] = &[("DORMOUSE_REQUEST_MS", "3000"), ("DORMOUSE_ANSWER_MS", "3000")];
const STOPPED: Duration = Duration::from_millis(4_500);
const BODY: &str = r#"{"keys": ["ads/shown"]}"#;

fn begin(relay: &RelayProcess) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(relay.url().trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = BODY.len();
    write!(
        stream,
        "POST /dormouse.v1.Mailbox/Read HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{}",
        &BODY[..9]
    )?;
    Ok(stream)
}

fn end(mut stream: TcpStream) -> Outcome<String> {
    // Refused, it may be closed already.
    let _ = stream.write_all(&BODY.as_bytes()[9..]);
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn nobody_is_late_because_the_relay_stood_still() -> Outcome {
    let relay = RelayProcess::start(TIMES)?;
    let stream = begin(&relay)?;
    // The relay has begun to read it.
    thread::sleep(Duration::from_millis(300));
    let pid = relay.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("it runs");
    kill_process(pid, Signal::STOP)?;
    thread::sleep(STOPPED);
    kill_process(pid, Signal::CONT)?;
    thread::sleep(Duration::from_millis(100));
    let answer = end(stream)?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

#[test]
fn whoever_is_late_by_himself_is_told_so() -> Outcome {
    let relay = RelayProcess::start(TIMES)?;
    let stream = begin(&relay)?;
    thread::sleep(STOPPED);
    let answer = end(stream)?;
    assert!(answer.contains("SLOW_SENDER") || answer.is_empty(), "{answer}");
    Ok(())
}
