//! The shape of a function: made once, woken for each invocation, asleep in between. The loop stands for the platform's
//! runtime, such as `lambda_runtime::run(service_fn(..))`, which would hand over the request and its deadline.
//!
//! ```sh
//! cargo run --release --example handler
//! ```

use std::{error::Error, time::Duration};

use dormouse::Node;

/// What a platform tells of an invocation.
struct Context {
    request_id: String,
    time_left: Duration,
}

async fn handler(node: &Node, context: Context) -> Result<bool, Box<dyn Error>> {
    let awake = node.wake(context.time_left).await;
    let shown = awake.counter("ads/shown");
    let show = !shown.reached(1_000); // may overshoot by what others have not pushed yet
    if show {
        shown.add_once(&context.request_id, 1)?; // counts once, even if the platform invokes again
    }
    awake.sleep().await.warn_if_unsaved();
    Ok(show)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Made outside of the handler. Nothing is sent and no identity is drawn before the first wake.
    let node = Node::from_env()?;
    for number in 0..3 {
        let request_id = format!("{}-{number}", std::process::id());
        let context = Context { request_id, time_left: Duration::from_secs(3) };
        println!("show: {}", handler(&node, context).await?);
    }
    Ok(())
}
