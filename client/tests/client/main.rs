//! The client against a relay that says what a test wants.

mod connecting;
mod fake;
mod round_trips;
mod slow_links;

use std::time::Duration;

use dormouse::{Node, NodeBuilder};
use dormouse_proto::wire::v1;
use fake::Fake;

const TIME: Duration = Duration::from_secs(30);

fn builder(fake: &Fake) -> NodeBuilder {
    Node::builder().url(&fake.url).group("test").tag("zone", "a")
}

fn node(fake: &Fake) -> Node {
    builder(fake).build().expect("valid")
}

fn next(request: &v1::SyncRequest) -> &v1::sync_request::Next {
    request.next.as_ref().expect("something is said")
}
