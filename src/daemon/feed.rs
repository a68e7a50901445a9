//! What the `fusion` thread waits for: observations in the order of their time, up to each tick.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, at, never, select};

use crate::capture::AudioBlock;
use crate::face::FaceObservation;

use crate::queue::QueueReader;

/// What the `face` thread says of every picture, so that it is known how far it has come.
#[derive(Debug)]
pub struct FaceResult {
    pub at: Duration,
    pub face: Option<FaceObservation>,
}

/// One thing to take in.
#[derive(Debug)]
pub enum Event {
    FaceResult(FaceResult),
    Heard(AudioBlock),
}

/// Both sources, and how far each has come.
pub struct Feed {
    seen: Progress<FaceResult>,
    heard: Progress<AudioBlock>,
}

/// One source; `queue` is `None` once it has ended.
struct Progress<T> {
    queue: Option<QueueReader<T>>,
    until: Duration,
}

impl<T> Progress<T> {
    fn new(queue: Option<QueueReader<T>>) -> Self {
        Progress {
            queue,
            until: Duration::ZERO,
        }
    }

    fn is_behind(&self, time: Duration) -> bool {
        self.queue.is_some() && self.until < time
    }

    fn take(&mut self, item: Option<T>, end: impl Fn(&T) -> Duration) -> Option<T> {
        match &item {
            Some(item) => self.until = self.until.max(end(item)),
            None => self.queue = None,
        }
        item
    }
}

/// The queue's channel, or one that never delivers in place of an ended one.
fn open<T>(queue: &Option<QueueReader<T>>) -> Receiver<T> {
    queue.as_ref().map_or_else(never, |q| (**q).clone())
}

impl Feed {
    pub fn new(seen: Option<QueueReader<FaceResult>>, heard: Option<QueueReader<AudioBlock>>) -> Feed {
        Feed {
            seen: Progress::new(seen),
            heard: Progress::new(heard),
        }
    }

    /// The next thing needed to know all that was captured up to `time`, waiting for whichever source is behind; `None`
    /// once all is known. What comes in which order depends on the sources alone, not on the threads' luck.
    pub fn next_up_to(&mut self, time: Duration) -> Option<Event> {
        while self.seen.is_behind(time) {
            let item = self.seen.queue.as_ref().and_then(|q| q.recv().ok());
            if let Some(seen) = self.seen.take(item, |s| s.at) {
                return Some(Event::FaceResult(seen));
            }
        }
        while self.heard.is_behind(time) {
            let item = self.heard.queue.as_ref().and_then(|q| q.recv().ok());
            if let Some(chunk) = self.heard.take(item, AudioBlock::end) {
                return Some(Event::Heard(chunk));
            }
        }
        None
    }

    /// The next thing that comes before `deadline`, in the order of arrival; `None` at the deadline.
    pub fn next_before(&mut self, deadline: Instant) -> Option<Event> {
        loop {
            let (seen, heard) = (open(&self.seen.queue), open(&self.heard.queue));
            select! {
                recv(seen) -> item => {
                    if let Some(seen) = self.seen.take(item.ok(), |s| s.at) {
                        return Some(Event::FaceResult(seen));
                    }
                }
                recv(heard) -> item => {
                    if let Some(chunk) = self.heard.take(item.ok(), AudioBlock::end) {
                        return Some(Event::Heard(chunk));
                    }
                }
                recv(at(deadline)) -> _ => return None,
            }
        }
    }

    /// When the last source ended, on their clock; `None` while one goes on.
    pub fn end(&self) -> Option<Duration> {
        let over = self.seen.queue.is_none() && self.heard.queue.is_none();
        over.then(|| self.seen.until.max(self.heard.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{QueueWriter, WhenFull, queue};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn feed() -> (QueueWriter<FaceResult>, QueueWriter<AudioBlock>, Feed) {
        let (seen, seen_reader) = queue(16, WhenFull::Wait, &Default::default());
        let (heard, heard_reader) = queue(16, WhenFull::Wait, &Default::default());
        (seen, heard, Feed::new(Some(seen_reader), Some(heard_reader)))
    }

    fn picture(at: u64) -> FaceResult {
        FaceResult { at: ms(at), face: None }
    }

    fn sound(at: u64) -> AudioBlock {
        AudioBlock {
            at: ms(at),
            captured: Instant::now(),
            samples: vec![0.0; 1600],
        }
    }

    #[test]
    fn a_tick_waits_until_both_sources_have_come_that_far() {
        let (seen, heard, mut feed) = feed();
        for at in [0, 100, 200, 300] {
            seen.put(picture(at)).unwrap();
            heard.put(sound(at)).unwrap();
        }
        let mut got = (0, 0);
        while let Some(event) = feed.next_up_to(ms(200)) {
            match event {
                Event::FaceResult(_) => got.0 += 1,
                Event::Heard(_) => got.1 += 1,
            }
        }
        // Pictures at 0, 100 and 200 ms; sound up to 200 ms.
        assert_eq!(got, (3, 2));
    }

    #[test]
    fn the_end_is_that_of_the_longer_source() {
        let (seen, heard, mut feed) = feed();
        seen.put(picture(40)).unwrap();
        heard.put(sound(0)).unwrap();
        drop(seen);
        assert_eq!(feed.end(), None);
        drop(heard);
        while feed.next_up_to(ms(1000)).is_some() {}
        assert_eq!(feed.end(), Some(ms(100)));
    }

    #[test]
    fn by_the_clock_it_gives_up_at_the_deadline() {
        let (seen, heard, mut feed) = feed();
        seen.put(picture(0)).unwrap();
        drop(heard);
        let deadline = Instant::now() + ms(20);
        assert!(matches!(feed.next_before(deadline), Some(Event::FaceResult(_))));
        assert!(feed.next_before(deadline).is_none());
        assert!(Instant::now() >= deadline);
    }
}
