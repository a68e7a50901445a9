//! Bounded queues between threads, with an explicit rule for what happens when the receiver is too slow.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, Weak};

/// What a full queue does with the next item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The sender waits: nothing is lost, and the sender runs at the receiver's pace.
    Wait,
    /// The oldest item is dropped and counted: the sender never waits, and the receiver gets the newest items.
    DropOldest,
}

/// The receiver no longer exists.
#[derive(Debug, PartialEq, Eq)]
pub struct Disconnected;

pub struct QueueSender<T> {
    sender: Sender<T>,
    /// Takes the oldest item out of a full queue. Weak, because a strong one would keep the channel open after the receiver
    /// is dropped.
    receiver: Weak<Receiver<T>>,
    when_full: WhenFull,
    dropped: Arc<AtomicU64>,
    is_counted: fn(&T) -> bool,
}

pub type QueueReceiver<T> = Arc<Receiver<T>>;

/// Creates a queue of at most `capacity` items. `dropped` counts the items that [`WhenFull::DropOldest`] drops.
pub fn queue<T>(capacity: usize, when_full: WhenFull, dropped: &Arc<AtomicU64>) -> (QueueSender<T>, QueueReceiver<T>) {
    let (sender, receiver) = bounded(capacity);
    let receiver = Arc::new(receiver);
    let sender = QueueSender {
        sender,
        receiver: Arc::downgrade(&receiver),
        when_full,
        dropped: Arc::clone(dropped),
        is_counted: |_| true,
    };
    (sender, receiver)
}

impl<T> QueueSender<T> {
    /// Counts only these of the dropped items.
    pub fn count_only(self, is_counted: fn(&T) -> bool) -> QueueSender<T> {
        QueueSender { is_counted, ..self }
    }

    /// The number of items that wait.
    pub fn len(&self) -> usize {
        self.sender.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sender.is_empty()
    }

    pub fn capacity(&self) -> usize {
        // All queues are bounded.
        self.sender.capacity().unwrap_or_default()
    }

    pub fn send(&self, mut item: T) -> Result<(), Disconnected> {
        if self.when_full == WhenFull::Wait {
            return self.sender.send(item).map_err(|_| Disconnected);
        }
        loop {
            match self.sender.try_send(item) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(Disconnected),
                Err(TrySendError::Full(rejected)) => {
                    item = rejected;
                    let receiver = self.receiver.upgrade().ok_or(Disconnected)?;
                    // The receiver may have made room in the meantime: then nothing is dropped.
                    if receiver.try_recv().is_ok_and(|oldest| (self.is_counted)(&oldest)) {
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }
}

/// A sender whose queue can be replaced while other threads use it. Items sent while no queue is connected are discarded.
pub struct SwappableSender<T>(Mutex<Option<QueueSender<T>>>);

impl<T> Default for SwappableSender<T> {
    fn default() -> SwappableSender<T> {
        SwappableSender(Mutex::new(None))
    }
}

impl<T> SwappableSender<T> {
    /// Sends to `queue` from now on. The receiver of the previous queue reads what is left in it, and then sees its end.
    pub fn connect(&self, queue: QueueSender<T>) {
        *self.lock() = Some(queue);
    }

    pub fn disconnect(&self) {
        *self.lock() = None;
    }

    /// Fails if the connected queue's receiver no longer exists.
    pub fn send(&self, item: T) -> Result<(), Disconnected> {
        self.lock().as_ref().map_or(Ok(()), |queue| queue.send(item))
    }

    fn lock(&self) -> MutexGuard<'_, Option<QueueSender<T>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_the_oldest_items_and_counts_them() {
        let dropped = Arc::default();
        let (sender, receiver) = queue(2, WhenFull::DropOldest, &dropped);
        for i in 0..5 {
            sender.send(i).unwrap();
        }
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn only_some_of_the_dropped_items_are_counted() {
        let dropped = Arc::default();
        let (sender, receiver) = queue(2, WhenFull::DropOldest, &dropped);
        let sender = sender.count_only(|item| item % 2 == 0);
        for i in 0..5 {
            sender.send(i).unwrap();
        }
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_queue_that_waits_loses_nothing() {
        let dropped = Arc::default();
        let (sender, receiver) = queue(1, WhenFull::Wait, &dropped);
        let sum = std::thread::scope(|scope| {
            scope.spawn(move || (0..100).for_each(|i| sender.send(i).unwrap()));
            receiver.iter().sum::<i32>()
        });
        assert_eq!(sum, 4950);
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_sender_notices_that_its_receiver_is_gone() {
        for when_full in [WhenFull::Wait, WhenFull::DropOldest] {
            let (sender, receiver) = queue(1, when_full, &Arc::default());
            sender.send(1).unwrap();
            drop(receiver);
            assert_eq!(sender.send(2), Err(Disconnected));
        }
    }

    #[test]
    fn connecting_a_new_queue_ends_the_previous_one() {
        let swappable = SwappableSender::default();
        swappable.send(0).unwrap();
        let receivers = [1, 2].map(|i| {
            let (sender, receiver) = queue(4, WhenFull::Wait, &Arc::default());
            swappable.connect(sender);
            swappable.send(i).unwrap();
            receiver
        });
        swappable.disconnect();
        assert_eq!(
            receivers.map(|receiver| receiver.iter().collect::<Vec<_>>()),
            [[1], [2]]
        );
    }
}
