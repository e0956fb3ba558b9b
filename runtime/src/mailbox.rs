//! Messages from shard to shard, and between shards and other threads.
//!
//! A mailbox holds at most as many messages as it was made for: whoever sends faster than the
//! receiver takes waits. Works on any thread and under any executor, the simulated one included.

use std::fmt;

use thiserror::Error;

/// Makes a mailbox for up to `capacity` messages, at least one.
pub fn mailbox<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a mailbox for {capacity} messages could never deliver one");
    let (sender, receiver) = flume::bounded(capacity);
    (Sender(sender), Receiver(receiver))
}

/// The end that sends; clones send into the same mailbox.
pub struct Sender<T>(flume::Sender<T>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send> Sender<T> {
    /// Waits for room and sends. Cancel-safe: a dropped future has sent nothing, or all of it.
    pub async fn send(&self, message: T) -> Result<(), Closed<T>> {
        self.0.send_async(message).await.map_err(|flume::SendError(message)| Closed(message))
    }

    /// Sends if there is room now.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(message).map_err(|error| match error {
            flume::TrySendError::Full(message) => TrySendError::Full(message),
            flume::TrySendError::Disconnected(message) => TrySendError::Closed(message),
        })
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_disconnected()
    }
}

/// The end that receives, in the order of sending.
pub struct Receiver<T>(flume::Receiver<T>);

impl<T: Send> Receiver<T> {
    /// Waits for the next message; `None` once every sender is gone and all was received. Cancel-safe.
    pub async fn recv(&mut self) -> Option<T> {
        self.0.recv_async().await.ok()
    }

    /// The next message, if there is one now.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

/// What nobody will receive is dropped now, not when the last sender goes: an answer that waits inside a
/// message must be seen to fail.
impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.drain();
    }
}

/// The receiver is gone; here is the message back.
#[derive(Error)]
#[error("the receiver of this mailbox is gone")]
pub struct Closed<T>(pub T);

/// Why a message could not be sent at once; here it is back.
#[derive(Error)]
pub enum TrySendError<T> {
    /// The mailbox holds as many as it can.
    #[error("this mailbox is full")]
    Full(T),
    /// The receiver is gone.
    #[error("the receiver of this mailbox is gone")]
    Closed(T),
}

impl<T> fmt::Debug for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closed")
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Closed(_) => "Closed",
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_full_mailbox_makes_the_sender_wait() {
        let (sender, mut receiver) = mailbox(1);
        assert!(sender.send(1).now_or_never().is_some());
        assert!(sender.send(2).now_or_never().is_none());
        assert!(matches!(sender.try_send(3), Err(TrySendError::Full(3))));
        assert_eq!(receiver.try_recv(), Some(1));
        assert_eq!(receiver.try_recv(), None, "a dropped send leaves nothing behind");
    }

    #[test]
    fn each_end_notices_that_the_other_is_gone() {
        let (sender, mut receiver) = mailbox(1);
        sender.try_send(1).expect("room");
        drop(sender);
        assert_eq!(receiver.recv().now_or_never(), Some(Some(1)));
        assert_eq!(receiver.recv().now_or_never(), Some(None));

        let (sender, receiver) = mailbox(1);
        drop(receiver);
        assert!(sender.is_closed());
        assert!(matches!(sender.try_send(1), Err(TrySendError::Closed(1))));
    }
}
