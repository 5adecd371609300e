//! The services: decode, ask, encode.

mod about;
mod arriving;
mod authentication;
mod backup;
mod calls;
mod closing;
mod encode;
mod explain;
mod floors;
mod front;
mod guarded;
mod headers;
mod json;
mod mailbox;
mod membership;
mod patience;
mod selector;
mod server;
mod status;
mod stream;
mod sync;
mod watch;

use std::{future::Future, sync::Arc};

use dormouse_proto::{
    convert::{Violation, Violations},
    ids::Namespace,
    wire::{
        DESCRIPTORS,
        services::{
            mailbox_server::MailboxServer, membership_server::MembershipServer,
            operations_server::OperationsServer,
        },
    },
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch::Receiver},
};
use tonic::{Extensions, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::ServiceBuilder;

use crate::{
    access::{Caller, Denied},
    doors::{Doors, Standing},
    error::RelayError,
    listener,
    relay::Relay,
};

use authentication::Authentication;
use calls::Calls;
use closing::Closing;
use front::InFront;
use headers::Headers;

/// The largest request: a push of 1 MiB with what is around it.
const REQUEST_BYTES: usize = 2 << 20;
/// The largest answer: a chunk of 3 MiB, of which a single revision may exceed the bound.
const ANSWER_BYTES: usize = 64 << 20;

/// Backups at once.
const BACKUPS: usize = 1;

/// Implements the services on a relay.
#[derive(Clone, Debug)]
struct Service {
    relay: Relay,
    doors: Doors,
    /// Backups that may be under way: each holds a copy of the state until its reader has it.
    backups: Arc<Semaphore>,
}

/// Serves until `stop`, then finishes the calls that are under way. Certificate and tokens are those that the relay's
/// settings name.
///
/// # Errors
/// When these cannot be used.
pub async fn serve(
    relay: Relay,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let doors = Doors::open(&relay.config)?;
    serve_behind(doors, relay, listener, stop).await
}

/// As [`serve`], with certificate and tokens that were read already. They are read again when they change.
///
/// # Errors
/// When the descriptors of what is served do not fit together.
pub async fn serve_behind(
    doors: Doors,
    relay: Relay,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let metrics = Arc::clone(&relay.metrics);
    tokio::select! {
        served = serve_current(&doors, relay, listener, stop) => served,
        () = doors.keep_current(&metrics) => Ok(()),
    }
}

async fn serve_current(
    doors: &Doors,
    relay: Relay,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<MailboxServer<Service>>().await;
    health.set_serving::<MembershipServer<Service>>().await;
    health.set_serving::<OperationsServer<Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let (metrics, settings) = (Arc::clone(&relay.metrics), relay.config.connections);
    let json = json::JsonLayer::new(Arc::clone(&metrics))?;
    let authentication = Authentication::new(doors.tokens.clone(), Arc::clone(&metrics));
    let closing = Closing::new(relay.stopping.clone(), Arc::clone(&metrics));
    tokio::spawn(tell_health(health, relay.stopping.clone()));
    let incoming =
        listener::connections(listener, settings, doors, relay.clock.clone(), Arc::clone(&metrics));
    let service = Service { relay, doors: doors.clone(), backups: Arc::new(Semaphore::new(BACKUPS)) };
    let mailbox = MailboxServer::new(service.clone())
        .max_decoding_message_size(REQUEST_BYTES)
        .max_encoding_message_size(ANSWER_BYTES);
    let membership = MembershipServer::new(service.clone()).max_decoding_message_size(REQUEST_BYTES);
    let operations = OperationsServer::new(service).max_decoding_message_size(REQUEST_BYTES);
    let routes = Routes::new(health_service)
        .add_service(reflection)
        .add_service(mailbox)
        .add_service(membership)
        .add_service(operations);
    let service = ServiceBuilder::new()
        .layer(Calls::new())
        // In front of what follows, so that it translates the refusals of every other layer as well.
        .layer(json)
        .layer(InFront(Headers::new(settings.header_bytes_max, Arc::clone(&metrics))))
        .layer(InFront(closing))
        .layer(InFront(authentication))
        .service(routes.prepare());
    server::serve(incoming, service, settings, metrics, stop).await;
    Ok(())
}

/// Whoever asks for health is told at once that this relay stops, so that others get what comes.
async fn tell_health(health: HealthReporter, mut stopping: Receiver<bool>) {
    if stopping.wait_for(|stop| *stop).await.is_ok() {
        health.set_not_serving::<MailboxServer<Service>>().await;
        health.set_not_serving::<MembershipServer<Service>>().await;
        health.set_not_serving::<OperationsServer<Service>>().await;
        health.set_service_status("", ServingStatus::NotServing).await;
    }
}

impl Service {
    /// Why this relay's word is weaker than usual; empty: all is well.
    fn conditions(&self) -> Vec<i32> {
        self.relay.conditions().into_iter().map(|it| encode::condition(it) as i32).collect()
    }

    /// How long a stream to this caller may go on.
    fn standing(&self, caller: &Caller) -> Standing {
        Standing::of(caller, self.doors.tokens.as_ref())
    }

    /// Counts a refusal by its word.
    fn refused(&self, error: RelayError) -> RelayError {
        self.relay.metrics.refused(status::word(&error));
        error
    }
}

/// Who calls. The layer in front has said so; without its word nobody is let in.
fn caller(extensions: &Extensions) -> Result<Caller, RelayError> {
    extensions.get::<Caller>().cloned().ok_or(RelayError::TokenMissing)
}

/// The namespace of a request; empty: the token's own, or `default` without tokens.
fn namespace(caller: &Caller, name: String) -> Result<Namespace, RelayError> {
    caller.admits(&name)?;
    if name.is_empty() {
        return Ok(caller.own());
    }
    name.try_into().map_err(|error| RelayError::Invalid(Violations(vec![Violation::new("namespace", error)])))
}

impl From<Denied> for RelayError {
    fn from(Denied { own }: Denied) -> Self {
        Self::NamespaceDenied { own }
    }
}
