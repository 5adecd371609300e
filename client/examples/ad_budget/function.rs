//! One function: what would run on the platform. Standard input stands for its event source, standard output for its
//! answers; between two invocations the process is frozen and nothing in it runs.

use std::{error::Error, process::ExitCode, time::Duration};

use dormouse::{Awake, Freshness, Node, Slept};
use serde::{Deserialize, Serialize};

/// Set in the environment of a process that is to be a function.
pub(crate) const ROLE: &str = "AD_BUDGET_FUNCTION";
/// What all of them read and write.
pub(crate) const SHOWN: &str = "ads/shown";

/// An invocation, one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Invocation {
    /// The same when the platform invokes again because no answer came.
    pub(crate) request_id: String,
    /// The time that the platform grants.
    pub(crate) left_ms: u64,
    /// How long it takes to show an ad.
    pub(crate) work_ms: u64,
    /// `None`: only look.
    pub(crate) budget: Option<u32>,
}

/// Its answer, one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The counter as this function saw it when it woke.
    pub(crate) value: i64,
    /// Whether that was complete as of the wake.
    pub(crate) is_current: bool,
    /// An ad was shown.
    pub(crate) shown: bool,
    /// Nothing that it wrote is left behind.
    pub(crate) saved: bool,
}

/// Serves invocations until standard input ends.
pub(crate) fn run() -> Result<ExitCode, Box<dyn Error>> {
    let node = Node::from_env()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for line in std::io::stdin().lines() {
        let invocation: Invocation = serde_json::from_str(&line?)?;
        let answer = runtime.block_on(serve(&node, &invocation))?;
        println!("{}", serde_json::to_string(&answer)?);
    }
    runtime.block_on(node.leave("the platform needs it no more"));
    Ok(ExitCode::SUCCESS)
}

async fn serve(node: &Node, invocation: &Invocation) -> Result<Answer, Box<dyn Error>> {
    let awake = node.wake(Duration::from_millis(invocation.left_ms)).await;
    let value = awake.counter(SHOWN).value();
    let is_current = awake.freshness() == Freshness::Current;
    let shown = show(&awake, invocation).await?;
    let saved = !matches!(awake.sleep().await, Slept::Unsaved { .. });
    Ok(Answer { value, is_current, shown, saved })
}

async fn show(awake: &Awake, invocation: &Invocation) -> Result<bool, Box<dyn Error>> {
    let counter = awake.counter(SHOWN);
    let Some(budget) = invocation.budget else { return Ok(false) };
    if counter.reached(budget.into()) {
        return Ok(false);
    }
    tokio::time::sleep(Duration::from_millis(invocation.work_ms)).await;
    // Counts once, even if this process is killed now and another one is asked again.
    counter.add_once(&invocation.request_id, 1)?;
    Ok(true)
}
