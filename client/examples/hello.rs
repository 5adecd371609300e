//! A plain program that counts its own runs. With a relay on this machine (`cargo run --release`):
//!
//! ```sh
//! cargo run --release --example hello
//! ```

use std::{error::Error, time::Duration};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let node = dormouse::Node::builder().url("http://127.0.0.1:7400").group("demo").build()?;
    let awake = node.wake(Duration::from_secs(5)).await;
    awake.require(Duration::from_secs(1))?;
    awake.counter("demo/hits").add(1)?;
    println!("{} hits, {} awake", awake.counter("demo/hits").value(), awake.members().awake);
    println!("{:?}", awake.sleep().await);
    Ok(())
}
