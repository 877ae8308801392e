//! What a follower is told: JSON values, a line each.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use adit_program::task;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc};

/// Lines that may wait for a follower, beside those that its socket holds.
const MAX_WAITING: usize = 32;

/// The events for one follower, which end when their sender is gone.
pub struct Events(BoxStream<'static, Result<Bytes, FellBehind>>);

/// The sender has dropped events that this follower has not had.
struct FellBehind;

/// The lines of a follower as HTTP takes them.
pub(super) type Lines = BoxStream<'static, Result<Frame<Bytes>, Infallible>>;

impl Events {
    /// Tells `first` at once, and then what comes out of `later`.
    pub fn new<T: Serialize + Clone + Send + 'static>(first: &T, later: broadcast::Receiver<T>) -> Self {
        let later = stream::unfold(later, |mut later| async move {
            let told = match later.recv().await {
                Ok(event) => Ok(line(&event)),
                Err(RecvError::Lagged(_)) => Err(FellBehind),
                Err(RecvError::Closed) => return None,
            };
            Some((told, later))
        });
        Self(stream::once(ready(Ok(line(first)))).chain(later).boxed())
    }

    /// The lines for a follower. `cut` is told if it falls behind: its connection must be closed then, since it may
    /// never be ready to be written to again.
    pub(super) fn into_lines(self, cut: Arc<Notify>) -> Lines {
        let (lines, waiting) = mpsc::channel(MAX_WAITING);
        let pump = task::spawn(pump(self, lines, cut));
        stream::unfold((waiting, pump), |(mut waiting, pump)| async move {
            let line = waiting.recv().await?;
            Some((Ok(Frame::data(line)), (waiting, pump)))
        })
        .boxed()
    }
}

fn line(event: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(event).expect("what programs tell has strings as keys");
    line.push(b'\n');
    line.into()
}

/// Passes events on until there are no more. It never waits for the follower, so it notices one that does not read.
async fn pump(mut events: Events, lines: mpsc::Sender<Bytes>, cut: Arc<Notify>) {
    while let Some(told) = events.0.next().await {
        let is_passed_on = told.is_ok_and(|line| lines.try_send(line).is_ok());
        if !is_passed_on {
            // Before `lines` is gone, which would look like an end in good order.
            cut.notify_one();
            return;
        }
    }
}
