//! The body of a request while it arrives: it has a time, and takes room from all that arrive.

use std::{
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use dormouse_proto::convert::{Violation, Violations};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::{REQUEST_BYTES, guarded::Inflow, status};
use crate::{
    error::RelayError,
    listener::{Host, Member, Millis},
    metrics::Metrics,
};

/// What gRPC puts before a message: whether it is compressed, and how long it is.
const PREFIX: usize = 5;

/// Reads as the body does, until a bound is reached: then with the status of that refusal.
pub(super) struct Arriving<B = Incoming> {
    body: B,
    member: Arc<Member>,
    host: Arc<Host>,
    inflow: Arc<Inflow>,
    metrics: Arc<Metrics>,
    /// It has so long, ...
    time: Duration,
    /// ... until then.
    until: Millis,
    /// Most bodies are there with their header, and need no timer.
    timer: Option<Pin<Box<Sleep>>>,
    taken: u64,
    is_over: bool,
    prefix: Prefix,
}

impl<B> Arriving<B> {
    pub(super) fn new(
        body: B,
        (member, host): (Arc<Member>, Arc<Host>),
        inflow: Arc<Inflow>,
        metrics: Arc<Metrics>,
        time: Duration,
        is_grpc: bool,
    ) -> Self {
        let prefix = if is_grpc { Prefix::default() } else { Prefix::over() };
        let until = host.now().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Self {
            body,
            member,
            host,
            inflow,
            metrics,
            time,
            until,
            timer: None,
            taken: 0,
            is_over: false,
            prefix,
        }
    }

    fn refused(&self, error: RelayError) -> Status {
        self.metrics.refused(status::word(&error));
        error.into()
    }

    fn took(&mut self, data: &Bytes) -> Result<(), Status> {
        self.member.meant(data.len());
        if let Some(length) = self.prefix.take(data).filter(|length| *length > REQUEST_BYTES) {
            let violation = Violation::too_large("message", length, REQUEST_BYTES, "bytes");
            return Err(self.refused(RelayError::Invalid(Violations(vec![violation]))));
        }
        let bytes = data.len() as u64;
        if !self.inflow.take(bytes) {
            return Err(self.refused(RelayError::Busy("bytes of requests")));
        }
        self.taken += bytes;
        Ok(())
    }

    /// Whether its time is over; if not, the task is told when it may be.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let left = |host: &Host, until: Millis| Duration::from_millis(until.saturating_sub(host.now()));
        let Self { host, until, timer, .. } = self;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep(left(host, *until))));
        while timer.as_mut().poll(context).is_ready() {
            match left(host, *until) {
                Duration::ZERO => return true,
                // The relay stood still, for which the sender is not to blame.
                left => timer.as_mut().reset(Instant::now() + left),
            }
        }
        false
    }
}

impl<B> http_body::Body for Arriving<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let took = frame.data_ref().map_or(Ok(()), |data| self.took(data));
                Poll::Ready(Some(took.map(|()| frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.member.broke_off(self.host.now());
                Poll::Ready(Some(Err(Status::from_error(error.into()))))
            }
            Poll::Ready(None) => {
                self.is_over = true;
                Poll::Ready(None)
            }
            Poll::Pending if self.is_late(context) => {
                let patience_ms = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
                Poll::Ready(Some(Err(self.refused(RelayError::SlowSender { patience_ms }))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Arriving<B> {
    fn drop(&mut self) {
        if !self.is_over {
            self.member.left_unread(self.host.now());
        }
        self.inflow.give_back(self.taken);
    }
}

/// The first bytes of a gRPC body, in which the first message says how long it is.
#[derive(Debug, Default)]
struct Prefix {
    bytes: [u8; PREFIX],
    seen: usize,
}

impl Prefix {
    /// Nothing is looked for.
    const fn over() -> Self {
        Self { bytes: [0; PREFIX], seen: PREFIX }
    }

    /// The length, with the bytes that complete it.
    fn take(&mut self, data: &[u8]) -> Option<usize> {
        let new = (PREFIX - self.seen).min(data.len());
        if new == 0 {
            return None;
        }
        self.bytes[self.seen..][..new].copy_from_slice(&data[..new]);
        self.seen += new;
        let [_, length @ ..] = self.bytes;
        (self.seen == PREFIX).then(|| usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_found_however_its_bytes_come() {
        let bytes = [0, 0, 1, 0, 2, 9, 9];
        for first in 0..=bytes.len() {
            let mut prefix = Prefix::default();
            let found = [prefix.take(&bytes[..first]), prefix.take(&bytes[first..]), prefix.take(b"more")];
            assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), [0x1_0002], "{first}");
        }
        assert_eq!(Prefix::over().take(&bytes), None);
    }
}
