//! Real processes: functions that are frozen with SIGSTOP, thawed with SIGCONT and killed with SIGKILL, and the relay's
//! own binary, killed and started again in the middle.
//!
//! A function process is this very test binary, run again with a variable that says where its relay is.
#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time")]

#[path = "processes/relay.rs"]
mod relay;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use dormouse::{Freshness, MemberFilter, MemberState, Node, Relay, Slept, replica::message::Rows};
use relay::{Outcome, PATIENCE, RelayProcess};

const FUNCTION: &str = "DORMOUSE_TEST_FUNCTION";

// ---- the function process ----

/// Not a test of its own: the body of a function process.
#[test]
fn a_function_process() -> Outcome {
    let Ok(url) = std::env::var(FUNCTION) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let node = Node::builder().url(url).group("e2e").follow("e2e").budget(Duration::from_secs(5)).build()?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let (verb, id) = line.split_once(' ').unwrap_or((&line, ""));
        let said = runtime.block_on(invoke(&node, verb, id));
        println!("@ {said}");
    }
    Ok(())
}

/// One invocation: what it saw, and whether what it wrote is saved.
async fn invoke(node: &Node, verb: &str, id: &str) -> String {
    let awake = node.wake(Duration::from_secs(60)).await;
    let current = matches!(awake.freshness(), Freshness::Current);
    if verb == "wake" {
        return format!("{current} 0 0 true");
    }
    let (hits, seen) = (awake.counter("e2e/hits"), awake.set("e2e/seen"));
    if verb == "write" {
        hits.add_once(id, 1).expect("the outbox has room");
        seen.add(id).expect("the outbox has room");
    }
    let said = format!("{current} {} {}", hits.value(), seen.elements().len());
    let slept = awake.sleep().await;
    format!("{said} {}", !matches!(slept, Slept::Unsaved { .. }))
}

/// What a function process said of an invocation.
#[derive(Debug)]
struct Said {
    current: bool,
    hits: i64,
    seen: usize,
    saved: bool,
}

struct Function {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Function {
    fn start(url: &str) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "a_function_process", "--nocapture"])
            .env(FUNCTION, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (send, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test harness says things of its own, and does not end its first line.
                if let Some((_, said)) = line.split_once("@ ") {
                    let _ = send.send(said.to_owned());
                }
            }
        });
        Ok(Self { child, stdin, lines })
    }

    fn signal(&self, name: &str) -> Outcome {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(format!("kill -{name} failed").into()) }
    }

    /// Thaws, invokes, waits for the answer, freezes.
    fn invoke(&mut self, line: &str) -> Outcome<Said> {
        self.signal("CONT")?;
        writeln!(self.stdin, "{line}")?;
        let said = self.lines.recv_timeout(PATIENCE)?;
        self.signal("STOP")?;
        let mut words = said.split(' ');
        let mut word = || words.next().ok_or("too few words");
        Ok(Said {
            current: word()? == "true",
            hits: word()?.parse()?,
            seen: word()?.parse()?,
            saved: word()? == "true",
        })
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// ---- what they do together ----

#[test]
fn frozen_and_killed_processes_converge_through_a_relay_that_is_killed_in_the_middle() -> Outcome {
    let mut relay = RelayProcess::start(&[])?;
    let mut functions: Vec<Function> =
        (0..5).map(|_| Function::start(&relay.url())).collect::<Outcome<_>>()?;
    let (mut written, mut unsaved) = (0_i64, 0);
    for round in 0..12 {
        let down = matches!(round, 4 | 8);
        if down {
            relay.kill()?;
        }
        for (nth, function) in functions.iter_mut().enumerate() {
            let said = function.invoke(&format!("write r{round}-f{nth}"))?;
            written += 1;
            assert_eq!(said.saved, !down, "round {round}, function {nth}: {said:?}");
            assert_eq!(said.current, !down, "round {round}, function {nth}: {said:?}");
            unsaved += i32::from(!said.saved);
        }
        if down {
            relay.restart()?;
        }
        if matches!(round, 2 | 6 | 10) {
            // It sleeps, everything it wrote is saved, and nobody is told.
            functions[round % 5] = Function::start(&relay.url())?;
        }
    }
    assert_eq!(unsaved, 10, "two rounds without a relay; they go with the next wake");

    for function in &mut functions {
        function.invoke("look")?;
    }
    let told: Vec<Said> = functions.iter_mut().map(|it| it.invoke("look")).collect::<Outcome<_>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reading = runtime.block_on(Relay::builder().url(relay.url()).build()?.read(&["e2e/*"]))?;
    let hits = reading.keys.iter().find_map(|it| match &it.rows {
        Rows::Counter { value, .. } => Some(*value),
        _ => None,
    });
    assert_eq!(hits, Some(written), "each write counts, and counts once");
    for said in told {
        assert!(
            said.current && said.hits == written && i64::try_from(said.seen) == Ok(written),
            "{said:?}, {written} written"
        );
    }
    assert_eq!(relay.metric("dormouse_false_deaths_total")?, 0);
    Ok(())
}

#[test]
fn a_node_frozen_for_longer_than_any_lease_is_served_in_one_round_trip_under_the_same_node_id() -> Outcome {
    let leases = [
        ("DORMOUSE_AWAKE_LEASE_MS", "300"),
        ("DORMOUSE_ASLEEP_LEASE_MS", "400"),
        ("DORMOUSE_SUSPECT_GRACE_MS", "100"),
    ];
    let relay = RelayProcess::start(&leases)?;
    let back_end = Relay::builder().url(relay.url()).build()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut function = Function::start(&relay.url())?;
    assert!(function.invoke("write first")?.saved);
    let was = runtime.block_on(back_end.members(&MemberFilter::default()))?;
    assert_eq!(was.len(), 1);

    let began = Instant::now();
    let gone = loop {
        let ended = MemberFilter { states: vec![MemberState::Gone], ..MemberFilter::default() };
        let gone = runtime.block_on(back_end.members(&ended))?;
        if !gone.is_empty() {
            break gone;
        }
        assert!(began.elapsed() < PATIENCE, "nobody declared it gone");
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(gone[0].node_id, was[0].node_id);

    let before = relay.metric("dormouse_wakes_total")?;
    assert!(function.invoke("wake")?.current);
    assert_eq!(relay.metric("dormouse_wakes_total")? - before, 1, "one round trip");
    let now = runtime.block_on(back_end.member(&was[0].node_id))?;
    assert_eq!((now.node_id.as_str(), now.incarnation), (was[0].node_id.as_str(), was[0].incarnation + 1));
    assert_ne!(now.state, MemberState::Gone);
    assert_eq!(relay.metric("dormouse_false_deaths_total")?, 1, "and it is counted as what it was");
    Ok(())
}
