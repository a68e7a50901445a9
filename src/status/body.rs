//! The bodies of answers: a text, or a stream of events.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::broadcast;

use super::connections::Stream;
use crate::privacy::PauseSwitch;

pub enum ResponseBody {
    Text(Option<Bytes>),
    Events(EventStream),
    Image(ImageBody),
}

/// An image of the camera. Broken off by a pause, however slowly the client reads.
pub struct ImageBody {
    rest: Bytes,
    pause: Arc<PauseSwitch>,
}

impl ImageBody {
    /// About what the buffers of a connection hold.
    const PIECE: usize = 4096;

    pub fn new(image: Vec<u8>, pause: Arc<PauseSwitch>) -> ImageBody {
        ImageBody {
            rest: image.into(),
            pause,
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        if self.rest.is_empty() || self.pause.is_paused() {
            return None;
        }
        Some(self.rest.split_to(self.rest.len().min(ImageBody::PIECE)))
    }
}

/// Events, from the greeting on. A reader that is too slow misses the oldest.
pub struct EventStream {
    greeting: Option<Bytes>,
    next: Pin<Box<dyn Future<Output = Next> + Send>>,
    _open: Stream,
}

type Next = Option<(Bytes, broadcast::Receiver<Bytes>)>;

impl EventStream {
    pub fn new(greeting: Bytes, events: broadcast::Receiver<Bytes>, open: Stream) -> EventStream {
        EventStream {
            greeting: Some(greeting),
            next: Box::pin(next(events)),
            _open: open,
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(greeting) = self.greeting.take() {
            return Poll::Ready(Some(greeting));
        }
        self.next.as_mut().poll(context).map(|next_event| {
            let (event, events) = next_event?;
            self.next = Box::pin(next(events));
            Some(event)
        })
    }
}

/// The next event; `None` at the end of the page.
async fn next(mut events: broadcast::Receiver<Bytes>) -> Next {
    loop {
        match events.recv().await {
            Ok(event) => return Some((event, events)),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            ResponseBody::Text(text) => Poll::Ready(text.take()),
            ResponseBody::Events(events) => events.poll_next(context),
            ResponseBody::Image(image) => Poll::Ready(image.next()),
        };
        data.map(|data| data.map(|data| Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            ResponseBody::Events(_) => SizeHint::default(),
            ResponseBody::Image(image) => SizeHint::with_exact(image.rest.len() as u64),
        }
    }
}
