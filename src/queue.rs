//! The arrows between threads: bounded channels that say what happens when the reader is too slow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// What a full queue does with the next item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Waits for room: nothing is lost and the writer goes at the reader's pace.
    Wait,
    /// Drops the oldest item and counts it: the writer never waits and the reader gets the newest.
    DropOldest,
}

/// The reader has gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

/// The writing end.
pub struct QueueWriter<T> {
    sender: Sender<T>,
    /// The reader's own end, to take the oldest out of a full queue. Weak, so that it does not keep the channel open when
    /// the reader has gone.
    reader: Weak<Receiver<T>>,
    when_full: WhenFull,
    dropped: Arc<AtomicU64>,
}

/// The reading end.
pub type QueueReader<T> = Arc<Receiver<T>>;

/// A queue of at most `capacity` items. What it drops is added to `dropped`.
pub fn queue<T>(capacity: usize, when_full: WhenFull, dropped: &Arc<AtomicU64>) -> (QueueWriter<T>, QueueReader<T>) {
    let (sender, receiver) = bounded(capacity);
    let reader = Arc::new(receiver);
    let writer = QueueWriter {
        sender,
        reader: Arc::downgrade(&reader),
        when_full,
        dropped: Arc::clone(dropped),
    };
    (writer, reader)
}

impl<T> QueueWriter<T> {
    pub fn put(&self, mut item: T) -> Result<(), Gone> {
        if self.when_full == WhenFull::Wait {
            return self.sender.send(item).map_err(|_| Gone);
        }
        loop {
            match self.sender.try_send(item) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(Gone),
                Err(TrySendError::Full(back)) => {
                    item = back;
                    let reader = self.reader.upgrade().ok_or(Gone)?;
                    // The reader may have made room in the meantime: then nothing is dropped.
                    if reader.try_recv().is_ok() {
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }
}

/// Where a source puts what it has, whoever takes it at the time. While nobody does, it is dropped.
pub struct SwappableSender<T>(Mutex<Option<QueueWriter<T>>>);

impl<T> Default for SwappableSender<T> {
    fn default() -> SwappableSender<T> {
        SwappableSender(Mutex::new(None))
    }
}

impl<T> SwappableSender<T> {
    /// From now on goes into `queue`. The reader of the one before gets what is in there, and then learns that it is over.
    pub fn connect(&self, queue: QueueWriter<T>) {
        *self.lock() = Some(queue);
    }

    pub fn disconnect(&self) {
        *self.lock() = None;
    }

    /// An error if the reader has gone by itself.
    pub fn put(&self, item: T) -> Result<(), Gone> {
        self.lock().as_ref().map_or(Ok(()), |queue| queue.put(item))
    }

    fn lock(&self) -> MutexGuard<'_, Option<QueueWriter<T>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_that_drops_keeps_the_newest_and_counts_the_rest() {
        let dropped = Arc::default();
        let (writer, reader) = queue(2, WhenFull::DropOldest, &dropped);
        for i in 0..5 {
            writer.put(i).unwrap();
        }
        assert_eq!(reader.try_iter().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_full_queue_that_waits_loses_nothing() {
        let dropped = Arc::default();
        let (writer, reader) = queue(1, WhenFull::Wait, &dropped);
        let sum = std::thread::scope(|scope| {
            scope.spawn(move || (0..100).for_each(|i| writer.put(i).unwrap()));
            reader.iter().sum::<i32>()
        });
        assert_eq!(sum, 4950);
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_writer_learns_that_its_reader_has_gone() {
        for when_full in [WhenFull::Wait, WhenFull::DropOldest] {
            let (writer, reader) = queue(1, when_full, &Arc::default());
            writer.put(1).unwrap();
            drop(reader);
            assert_eq!(writer.put(2), Err(Gone));
        }
    }

    #[test]
    fn a_socket_plugged_anew_ends_the_old_queue_and_fills_the_new_one() {
        let socket = SwappableSender::default();
        socket.put(0).unwrap();
        let readers = [1, 2].map(|i| {
            let (writer, reader) = queue(4, WhenFull::Wait, &Arc::default());
            socket.connect(writer);
            socket.put(i).unwrap();
            reader
        });
        socket.disconnect();
        assert_eq!(readers.map(|reader| reader.iter().collect::<Vec<_>>()), [[1], [2]]);
    }
}
