//! The part of crossbeam-channel that the queues use, with its documented behaviour.

use std::collections::VecDeque;

use loom::sync::{Arc, Condvar, Mutex, MutexGuard};

pub struct Sender<T>(Arc<Channel<T>>);

pub struct Receiver<T>(Arc<Channel<T>>);

#[derive(Debug, PartialEq, Eq)]
pub struct SendError<T>(pub T);

#[derive(Debug, PartialEq, Eq)]
pub enum TrySendError<T> {
    Full(T),
    Disconnected(T),
}

/// The channel is empty and has no sender.
#[derive(Debug, PartialEq, Eq)]
pub struct RecvError;

#[derive(Debug, PartialEq, Eq)]
pub enum TryRecvError {
    Empty,
    Disconnected,
}

struct Channel<T> {
    state: Mutex<State<T>>,
    /// Notified when an item comes, or when an end is dropped.
    changed: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    capacity: usize,
    has_sender: bool,
    has_receiver: bool,
}

pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a channel without room is not modelled");
    let channel = Arc::new(Channel {
        state: Mutex::new(State {
            items: VecDeque::new(),
            capacity,
            has_sender: true,
            has_receiver: true,
        }),
        changed: Condvar::new(),
    });
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

impl<T> Channel<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap()
    }
}

impl<T> Sender<T> {
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let mut state = self.0.lock();
        if !state.has_receiver {
            return Err(TrySendError::Disconnected(item));
        }
        if state.items.len() == state.capacity {
            return Err(TrySendError::Full(item));
        }
        state.items.push_back(item);
        self.0.changed.notify_all();
        Ok(())
    }

    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        let mut state = self.0.lock();
        while state.has_receiver && state.items.len() == state.capacity {
            state = self.0.changed.wait(state).unwrap();
        }
        if !state.has_receiver {
            return Err(SendError(item));
        }
        state.items.push_back(item);
        self.0.changed.notify_all();
        Ok(())
    }
}

impl<T> Sender<T> {
    pub fn len(&self) -> usize {
        self.0.lock().items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn capacity(&self) -> Option<usize> {
        Some(self.0.lock().capacity)
    }
}

impl<T> Receiver<T> {
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut state = self.0.lock();
        match state.items.pop_front() {
            Some(item) => {
                self.0.changed.notify_all();
                Ok(item)
            }
            None if state.has_sender => Err(TryRecvError::Empty),
            None => Err(TryRecvError::Disconnected),
        }
    }

    pub fn recv(&self) -> Result<T, RecvError> {
        let mut state = self.0.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                self.0.changed.notify_all();
                return Ok(item);
            }
            if !state.has_sender {
                return Err(RecvError);
            }
            state = self.0.changed.wait(state).unwrap();
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.recv().ok())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().has_sender = false;
        self.0.changed.notify_all();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let items = {
            let mut state = self.0.lock();
            state.has_receiver = false;
            std::mem::take(&mut state.items)
        };
        self.0.changed.notify_all();
        drop(items);
    }
}
