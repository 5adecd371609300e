//! To a whole group, and to one function: a broadcast is a log of events that the group follows, a direct message waits in
//! the mailbox of its node. Nobody is called; everybody finds it at its next wake.
//!
//! ```sh
//! cargo run --release --example broadcast
//! ```
//!
//! Uses a running relay (`cargo run --release`), or one of its own when none answers.

#[path = "relay_here/mod.rs"]
mod relay_here;

use std::{error::Error, time::Duration};

use dormouse::{NewEvent, Node, Relay, SendOptions, Value};
use dormouse_relay::liveness::LeaseSettings;
use relay_here::RelayHere;

const ORDERS: &str = "workers/orders";
const LEFT: Duration = Duration::from_secs(5);

/// What a function of the group knows after its last invocation.
struct Worker {
    name: &'static str,
    node: Node,
    seen: usize,
}

impl Worker {
    fn new(name: &'static str, url: &str) -> Result<Self, Box<dyn Error>> {
        let node =
            Node::builder().url(url).namespace("broadcast").group("workers").follow("workers").build()?;
        Ok(Self { name, node, seen: 0 })
    }

    /// One invocation: what was said to all since the last one, and what to this one alone.
    async fn invoke(&mut self) -> Result<(usize, usize), Box<dyn Error>> {
        let awake = self.node.wake(LEFT).await;
        let orders = awake.events::<String>(ORDERS).entries()?;
        let new = &orders[self.seen.min(orders.len())..];
        for order in new {
            println!("  {} hears: {}", self.name, order.payload);
        }
        let mail = awake.take_inbox();
        for message in &mail {
            println!("  {} alone hears: {:?} from {}", self.name, message.payload, message.sender);
        }
        let heard = (new.len(), mail.len());
        self.seen = orders.len();
        awake.sleep().await.warn_if_unsaved();
        Ok(heard)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let here = RelayHere::find_or_start(LeaseSettings::default()).await?;
    println!("{}", here.introduction());
    let relay = Relay::builder().url(&here.url).namespace("broadcast").build()?;

    let mut workers = Vec::new();
    for name in ["anna", "ben", "carl"] {
        workers.push(Worker::new(name, &here.url)?);
    }
    println!("three functions wake, and sleep again");
    for worker in &mut workers {
        worker.invoke().await?;
    }

    println!("while they sleep, a back end speaks to all of them, and to one");
    let order = |text: &str| NewEvent { payload: Value::Text(format!("{text:?}")), id: None };
    relay.append(ORDERS, vec![order("the price is 5 from now on")]).await?;
    relay.append(ORDERS, vec![order("no, 6")]).await?;
    let members = relay.members(&dormouse::MemberFilter::default()).await?;
    let to = &members.first().ok_or("nobody is a member")?.node_id;
    let options = SendOptions { sender: Some("the back end".to_owned()), ..SendOptions::default() };
    relay.send(to, Some("question-1"), Value::Text("how are you?".to_owned()), options.clone()).await?;
    // Nobody knows whether the first answer was lost; repeated under its id it is one message.
    relay.send(to, Some("question-1"), Value::Text("how are you?".to_owned()), options).await?;

    let (mut broadcasts, mut messages) = (0, 0);
    for worker in &mut workers {
        let (heard, alone) = worker.invoke().await?;
        broadcasts += heard;
        messages += alone;
    }
    if broadcasts < 6 || messages != 1 {
        return Err(format!("{broadcasts} broadcasts and {messages} messages were heard").into());
    }
    println!("each heard both broadcasts, one heard its message, once");
    for worker in &workers {
        worker.node.leave("the example is over").await;
    }
    Ok(())
}
