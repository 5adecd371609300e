//! Callers that link nothing of ours: the lines of the README that `curl` sends, and the small clients for Python and
//! Node.js with their own tests, against a real relay.

#[path = "../access/certificates.rs"]
#[allow(dead_code, reason = "other tests make bad ones as well")]
mod certificates;
mod curl;
mod languages;
#[allow(dead_code, reason = "here nobody kills the relay or reads its metrics")]
#[path = "../processes/relay.rs"]
mod relay;
mod trusted;

use std::process::Command;

/// Whether a program can be run. If not, it is said what is not tried.
fn is_there(program: &str, for_what: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|it| it.status.success());
    if !found {
        eprintln!("SKIPPED: {for_what}: `{program}` is not installed");
    }
    found
}
