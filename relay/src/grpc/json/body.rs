//! The body of a request, translated when it is first read.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use dormouse_proto::convert::{Violation, Violations};
use http_body::Frame;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tonic::{Status, body::Body};

use super::{
    TEXT_BYTES, beside,
    calls::{Call, Format},
};
use crate::{error::RelayError, grpc::status, metrics::Metrics};

type Translating = Pin<Box<dyn Future<Output = Result<Bytes, Status>> + Send>>;

/// Reads as the body of a gRPC request. What is wrong with the text fails the reading, with the status of that refusal.
pub(super) struct JsonBody {
    /// `None`: all was read.
    translating: Option<Translating>,
}

impl JsonBody {
    pub(super) fn new(
        body: Body,
        headers: &HeaderMap,
        call: Arc<Call>,
        format: Format,
        metrics: Arc<Metrics>,
    ) -> Self {
        let said = headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        let translating = async move {
            let refused = |error: RelayError| {
                metrics.refused(status::word(&error));
                Status::from(error)
            };
            let text = text(body, said).await.map_err(|unread| match unread {
                Unread::TooLarge(error) => refused(error),
                Unread::Broken(status) => status,
            })?;
            let frame = beside(text.len(), move || call.frame(format, &text)).await?;
            frame.map_err(refused)
        };
        Self { translating: Some(Box::pin(translating)) }
    }
}

#[derive(Debug)]
enum Unread {
    TooLarge(RelayError),
    Broken(Status),
}

/// The whole text, unless it is too long; what is known to be too long from its headers is not read at all.
async fn text(body: Body, said: Option<usize>) -> Result<Bytes, Unread> {
    let too_large = |is: usize| {
        let violation = Violation::too_large("body", is, TEXT_BYTES, "bytes");
        Unread::TooLarge(RelayError::Invalid(Violations(vec![violation])))
    };
    if let Some(is) = said.filter(|is| *is > TEXT_BYTES) {
        return Err(too_large(is));
    }
    match Limited::new(body, TEXT_BYTES).collect().await {
        Ok(text) => Ok(text.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(TEXT_BYTES + 1)),
        Err(error) => Err(Unread::Broken(Status::from_error(error))),
    }
}

impl http_body::Body for JsonBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(translating) = &mut self.translating else { return Poll::Ready(None) };
        let translated = std::task::ready!(translating.as_mut().poll(context));
        self.translating = None;
        Poll::Ready(Some(translated.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.translating.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(length: usize, said: Option<usize>) -> Result<usize, Vec<Violation>> {
        let body = Body::new(http_body_util::Full::new(Bytes::from(vec![b' '; length])));
        match text(body, said).await {
            Ok(text) => Ok(text.len()),
            Err(Unread::TooLarge(RelayError::Invalid(wrong))) => Err(wrong.0),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_text_that_is_too_long_is_refused_with_the_limit_whatever_its_headers_say() {
        assert_eq!(read(TEXT_BYTES, None).await, Ok(TEXT_BYTES));
        for (length, said) in [(TEXT_BYTES + 1, None), (0, Some(TEXT_BYTES + 1))] {
            let wrong = read(length, said).await.expect_err("too long");
            assert!(wrong[0].too_large);
            assert!(wrong[0].description.ends_with(&TEXT_BYTES.to_string()), "{wrong:?}");
        }
    }
}
