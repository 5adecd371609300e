//! A thin shell around a gRPC channel, for processes that are frozen between calls.
//!
//! A connection that died during a freeze fails with anything but UNAVAILABLE, or not at all: the first call on it
//! just waits. So the first attempt on a kept channel gets a short budget, and after *any* error that is no answer
//! there is one retry on a *new* channel. That is safe because whatever is sent may be sent twice. Nothing runs in the
//! background: keep-alives would not run in a frozen process either.

use std::{
    future::Future,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::{
    error::{ConfigError, Reason},
    target::Target,
};

/// The most that a first attempt on a kept channel may cost.
const FIRST_ATTEMPT: Duration = Duration::from_millis(150);
/// After this long without an answer a channel is not trusted. Load balancers forget idle connections after minutes.
const IDLE: Duration = Duration::from_secs(60);
/// A chunk has at most 3 MiB unless a single revision is larger.
pub(crate) const ANSWER_MAX: usize = 16 << 20;

/// The wall clock, for the stamps of this node and for deadlines that others state by it.
#[expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// The clock that never goes back, for the time that a call may still take.
#[expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]
fn monotonic_clock() -> Instant {
    Instant::now()
}

/// A moment on both clocks. Either may stand still while a process is frozen or restored from a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(Instant, SystemTime);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(monotonic_clock(), wall_clock())
    }

    /// Time since then: what the faster of the two clocks says.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed().max(self.1.elapsed().unwrap_or_default())
    }
}

#[derive(Debug)]
struct Kept {
    channel: Channel,
    /// Tells this channel from the one that replaced it.
    number: u64,
    last_reply: Moment,
}

/// One transmission of a call.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    timeout: Duration,
    token: Option<MetadataValue<Ascii>>,
    trace_parent: Option<MetadataValue<Ascii>>,
    after_timeout: bool,
}

impl Attempt {
    /// The transmission before this one, of the same call, got no answer in its time.
    pub(crate) const fn after_timeout(&self) -> bool {
        self.after_timeout
    }

    /// The request as this transmission sends it.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if let Some(parent) = &self.trace_parent {
            request.metadata_mut().insert("traceparent", parent.clone());
        }
        request
    }

    /// A request that may take as long as it likes: a stream.
    pub(crate) fn stream<T>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        request.metadata_mut().remove("grpc-timeout");
        request
    }
}

/// A relay, as far as it can be reached.
#[derive(Debug)]
pub(crate) struct Connection {
    endpoint: Endpoint,
    token: Option<MetadataValue<Ascii>>,
    trace_parent: Mutex<Option<MetadataValue<Ascii>>>,
    kept: Mutex<Option<Kept>>,
    opened: Mutex<u64>,
}

/// What a call may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    time: Duration,
    /// The kept channel has just answered, within the same conversation: a long answer on it is no sign of its death.
    channel_is_proven: bool,
}

impl Budget {
    pub(crate) const fn new(time: Duration) -> Self {
        Self { time, channel_is_proven: false }
    }

    /// When it is used up, if it begins now.
    pub(crate) fn ends_at(self) -> tokio::time::Instant {
        tokio::time::Instant::now() + self.time
    }

    /// Half of what is left stays for the retry; a kept channel must prove within a moment that it is alive.
    fn of_one_attempt(self, left: Duration, second: bool, is_new: bool) -> Duration {
        match (second, is_new) {
            (true, _) => left,
            (false, true) => left / 2,
            (false, false) if self.channel_is_proven => left,
            (false, false) => (left / 2).min(FIRST_ATTEMPT),
        }
    }

    pub(crate) const fn on_proven_channel(time: Duration) -> Self {
        Self { time, channel_is_proven: true }
    }
}

/// What is left to do after a failed attempt.
enum Next {
    /// It is an answer, if an unwelcome one.
    Stop,
    /// The relay asks to come later.
    Later(Duration),
    /// The channel may be dead.
    NewChannel,
}

impl Connection {
    /// Nothing is contacted here.
    pub(crate) fn new(target: &Target) -> Result<Self, ConfigError> {
        Ok(Self {
            endpoint: target.endpoint()?,
            token: target.bearer()?,
            trace_parent: Mutex::new(None),
            kept: Mutex::new(None),
            opened: Mutex::new(0),
        })
    }

    /// The span below which the calls from here on are told.
    pub(crate) fn trace(&self, parent: Option<MetadataValue<Ascii>>) {
        *self.trace_parent.lock() = parent;
    }

    /// Makes a call, twice if need be, within `budget`. `send` is asked for each transmission.
    pub(crate) async fn call<T, F>(
        &self,
        budget: Budget,
        mut send: impl FnMut(Channel, Attempt) -> F,
    ) -> Result<T, Reason>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let ends_at = monotonic_clock() + budget.time;
        let (mut second, mut after_timeout) = (false, false);
        loop {
            let left = ends_at.saturating_duration_since(monotonic_clock());
            let (channel, number, is_new) = self.channel();
            let timeout = budget.of_one_attempt(left, second, is_new);
            let (token, trace_parent) = (self.token.clone(), self.trace_parent.lock().clone());
            let attempt = Attempt { timeout, token, trace_parent, after_timeout };
            let outcome = tokio::time::timeout(timeout, send(channel, attempt)).await;
            let status = match outcome {
                Ok(Ok(answer)) => {
                    self.heard(number);
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            let next = after(&status);
            match next {
                Next::NewChannel => self.drop_channel(number),
                Next::Stop | Next::Later(_) => self.heard(number),
            }
            let left = ends_at.saturating_duration_since(monotonic_clock());
            match next {
                Next::NewChannel if !second && !left.is_zero() => {}
                Next::Later(wait) if !second && wait < left => tokio::time::sleep(wait).await,
                _ => return Err(Reason::from(status)),
            }
            (second, after_timeout) = (true, timed_out(&status));
        }
    }

    /// The kept channel, or a new one if there is none or it has been idle for too long.
    fn channel(&self) -> (Channel, u64, bool) {
        let mut kept = self.kept.lock();
        if let Some(it) = kept.as_ref().filter(|it| it.last_reply.elapsed() <= IDLE) {
            return (it.channel.clone(), it.number, false);
        }
        let number = {
            let mut opened = self.opened.lock();
            *opened += 1;
            *opened
        };
        let channel = self.endpoint.connect_lazy();
        *kept = Some(Kept { channel: channel.clone(), number, last_reply: Moment::now() });
        (channel, number, true)
    }

    fn heard(&self, number: u64) {
        if let Some(kept) = self.kept.lock().as_mut().filter(|kept| kept.number == number) {
            kept.last_reply = Moment::now();
        }
    }

    fn drop_channel(&self, number: u64) {
        self.kept.lock().take_if(|kept| kept.number == number);
    }
}

/// The time of a call is measured here, by the transport and by the relay, and any of them may be first.
fn timed_out(status: &Status) -> bool {
    matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
}

fn after(status: &Status) -> Next {
    match status.code() {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::InvalidArgument
        | Code::NotFound
        | Code::FailedPrecondition => Next::Stop,
        code @ (Code::ResourceExhausted | Code::Unavailable) => {
            match status.get_details_retry_info().and_then(|info| info.retry_delay) {
                Some(delay) => Next::Later(jittered(delay)),
                None if code == Code::ResourceExhausted => Next::Stop,
                None => Next::NewChannel,
            }
        }
        _ => Next::NewChannel,
    }
}

/// Between one and one and a half times as long, so that those who were sent away together do not come back together.
fn jittered(delay: Duration) -> Duration {
    let chance = getrandom::u32().unwrap_or(0);
    delay + delay.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0)
}
