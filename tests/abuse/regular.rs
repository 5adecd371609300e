//! Somebody who calls all the time, as a function does inside an invocation: one beat after the other.

use std::time::Duration;

use dormouse_proto::wire::v1::{self, mailbox_client::MailboxClient, sync_request::Next};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tonic::{
    Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// Between two beats.
const PAUSE: Duration = Duration::from_millis(4);

/// A connection to a relay; with TLS to whoever has a certificate of that authority.
pub(crate) async fn connect(url: &str, ca: Option<&str>) -> Result<Channel, tonic::transport::Error> {
    let mut endpoint = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true);
    if let Some(ca) = ca {
        endpoint = endpoint.tls_config(
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost"),
        )?;
    }
    endpoint.connect().await
}

/// One function instance.
pub(crate) struct Beating {
    client: MailboxClient<Channel>,
    identity: v1::NodeIdentity,
    beat: u64,
    token: Option<&'static str>,
}

impl Beating {
    pub(crate) fn new(channel: Channel, token: Option<&'static str>) -> Self {
        let boot_id = fastrand::u128(..).to_be_bytes().to_vec().into();
        let identity = v1::NodeIdentity { boot_id, group: "regular".into(), ..Default::default() };
        Self { client: MailboxClient::new(channel), identity, beat: 0, token }
    }

    /// A beat; the first one joins.
    pub(crate) async fn beat(&mut self) -> Result<(), Status> {
        self.beat += 1;
        let request = v1::SyncRequest {
            node: Some(self.identity.clone()),
            beat: self.beat,
            call_id: fastrand::u64(..).to_be_bytes().to_vec().into(),
            next: Some(Next::Awake(v1::Awake { remaining_ms: 600_000, then_asleep: false })),
            ..Default::default()
        };
        let mut request = Request::new(request);
        if let Some(token) = self.token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
        }
        let lease = self.client.sync(request).await?.into_inner().lease.expect("a lease");
        (self.identity.node_id, self.identity.incarnation) = (lease.node_id, lease.incarnation);
        Ok(())
    }
}

/// When a call began, and how long it took or why it failed.
pub(crate) type Answer = (Instant, Result<Duration, Status>);

/// Some of them, until they are asked what came of it.
pub(crate) struct Regulars {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<Vec<Answer>>>,
}

impl Regulars {
    /// So many, each on a connection of its own. All have joined when this returns.
    pub(crate) async fn start(
        url: &str,
        ca: Option<&str>,
        token: Option<&'static str>,
        count: usize,
    ) -> Self {
        let stop = watch::Sender::new(false);
        let mut tasks = Vec::new();
        for _ in 0..count {
            let channel = connect(url, ca).await.expect("a connection");
            let mut node = Beating::new(channel, token);
            node.beat().await.expect("it joins");
            let stopped = stop.subscribe();
            tasks.push(tokio::spawn(async move {
                let mut answers = Vec::new();
                while !*stopped.borrow() {
                    let called = Instant::now();
                    answers.push((called, node.beat().await.map(|()| called.elapsed())));
                    tokio::time::sleep(PAUSE).await;
                }
                answers
            }));
        }
        Self { stop, tasks }
    }

    /// All their calls.
    pub(crate) async fn finish(self) -> Vec<Answer> {
        self.stop.send_replace(true);
        let mut answers = Vec::new();
        for task in self.tasks {
            answers.extend(task.await.expect("a node"));
        }
        answers
    }
}
