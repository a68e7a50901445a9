//! The input of the fusion stage: face results and audio blocks, in the order of their capture time.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, at, never, select};

use crate::capture::AudioBlock;
use crate::face::FaceObservation;
use crate::queue::QueueReceiver;

/// The face stage's result for one frame. It also sends one for a frame without a face, so that the fusion stage knows which
/// frames are done.
#[derive(Debug)]
pub struct FaceResult {
    /// Capture time of the frame.
    pub at: Duration,
    pub face: Option<FaceObservation>,
}

/// Estimates go on for so long after the last input before a gap.
const QUIET: Duration = Duration::from_secs(1);

/// One item of the input.
#[derive(Debug)]
pub enum Input {
    Face(FaceResult),
    Audio(AudioBlock),
}

/// Merges the queues of face results and audio blocks.
pub struct InputFeed {
    faces: Stream<FaceResult>,
    audio: Stream<AudioBlock>,
}

struct Stream<T> {
    /// `None` once the stream has ended, or if the source does not have it.
    queue: Option<QueueReceiver<T>>,
    times: Times,
}

#[derive(Debug, Clone, Copy, Default)]
struct Times {
    /// Everything captured before this time has been received.
    received_until: Duration,
    /// The end of the item before the last one.
    previous: Duration,
}

impl Times {
    fn content_before(self, time: Duration) -> Duration {
        if self.received_until <= time {
            self.received_until
        } else {
            self.previous
        }
    }
}

impl<T> Stream<T> {
    fn new(queue: Option<QueueReceiver<T>>) -> Self {
        Stream {
            queue,
            times: Times::default(),
        }
    }

    fn is_behind(&self, time: Duration) -> bool {
        self.queue.is_some() && self.times.received_until < time
    }

    /// `None` if the stream has ended.
    fn times(&self) -> Option<Times> {
        self.queue.as_ref().map(|_| self.times)
    }

    /// Records that an item that ends at `end`, or the end of the stream, was received.
    fn received(&mut self, item: Option<T>, end: impl Fn(&T) -> Duration) -> Option<T> {
        match &item {
            Some(item) => {
                let until = self.times.received_until;
                self.times = Times {
                    received_until: until.max(end(item)),
                    previous: until,
                };
            }
            None => self.queue = None,
        }
        item
    }

    /// The queue's channel; one that never delivers if the stream has ended.
    fn channel(&self) -> Receiver<T> {
        self.queue.as_ref().map_or_else(never, |queue| (**queue).clone())
    }
}

impl InputFeed {
    /// `None` stands for a stream that the source does not have.
    pub fn new(faces: Option<QueueReceiver<FaceResult>>, audio: Option<QueueReceiver<AudioBlock>>) -> InputFeed {
        InputFeed {
            faces: Stream::new(faces),
            audio: Stream::new(audio),
        }
    }

    /// The next item captured before `time`, waiting for the stream that is behind; `None` once all have been returned. The
    /// order depends only on the capture times, not on thread scheduling, so a replay is reproducible.
    pub fn next_up_to(&mut self, time: Duration) -> Option<Input> {
        while self.faces.is_behind(time) {
            let item = self.faces.queue.as_ref().and_then(|queue| queue.recv().ok());
            if let Some(result) = self.faces.received(item, |result| result.at) {
                return Some(Input::Face(result));
            }
        }
        while self.audio.is_behind(time) {
            let item = self.audio.queue.as_ref().and_then(|queue| queue.recv().ok());
            if let Some(block) = self.audio.received(item, AudioBlock::end) {
                return Some(Input::Audio(block));
            }
        }
        None
    }

    /// The next item that arrives before `deadline`, in the order of arrival; `None` at the deadline.
    pub fn next_before(&mut self, deadline: Instant) -> Option<Input> {
        loop {
            let (faces, audio) = (self.faces.channel(), self.audio.channel());
            select! {
                recv(faces) -> item => {
                    if let Some(result) = self.faces.received(item.ok(), |result| result.at) {
                        return Some(Input::Face(result));
                    }
                }
                recv(audio) -> item => {
                    if let Some(block) = self.audio.received(item.ok(), AudioBlock::end) {
                        return Some(Input::Audio(block));
                    }
                }
                recv(at(deadline)) -> _ => return None,
            }
        }
    }

    /// How long nothing follows `time`, if no stream has had anything for [`QUIET`] either. Only streams that have not ended count.
    pub fn gap_at(&self, time: Duration) -> Option<Duration> {
        let streams = [self.faces.times(), self.audio.times()];
        let running = || streams.iter().flatten();
        let next = running().map(|times| times.received_until).min()?;
        let quiet = running().all(|times| times.content_before(time) + QUIET < time);
        next.checked_sub(time).filter(|_| quiet)
    }

    /// The time on the source's clock when the last stream ended; `None` until both have ended.
    pub fn end(&self) -> Option<Duration> {
        let ended = self.faces.queue.is_none() && self.audio.queue.is_none();
        ended.then(|| self.faces.times.received_until.max(self.audio.times.received_until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{QueueSender, WhenFull, queue};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn feed() -> (QueueSender<FaceResult>, QueueSender<AudioBlock>, InputFeed) {
        let (faces, face_results) = queue(16, WhenFull::Wait, &Default::default());
        let (audio, audio_blocks) = queue(16, WhenFull::Wait, &Default::default());
        (faces, audio, InputFeed::new(Some(face_results), Some(audio_blocks)))
    }

    fn face_result(at: u64) -> FaceResult {
        FaceResult { at: ms(at), face: None }
    }

    fn audio_block(at: u64) -> AudioBlock {
        AudioBlock {
            at: ms(at),
            captured: Instant::now(),
            samples: vec![0.0; 1600],
        }
    }

    #[test]
    fn an_estimate_waits_for_all_input_captured_before_it() {
        let (faces, audio, mut feed) = feed();
        for at in [0, 100, 200, 300] {
            faces.send(face_result(at)).unwrap();
            audio.send(audio_block(at)).unwrap();
        }
        let (mut face_results, mut audio_blocks) = (0, 0);
        while let Some(input) = feed.next_up_to(ms(200)) {
            match input {
                Input::Face(_) => face_results += 1,
                Input::Audio(_) => audio_blocks += 1,
            }
        }
        // Frames at 0, 100 and 200 ms; audio up to 200 ms.
        assert_eq!((face_results, audio_blocks), (3, 2));
    }

    #[test]
    fn the_feed_ends_with_its_longer_stream() {
        let (faces, audio, mut feed) = feed();
        faces.send(face_result(40)).unwrap();
        audio.send(audio_block(0)).unwrap();
        drop(faces);
        assert_eq!(feed.end(), None);
        drop(audio);
        while feed.next_up_to(ms(1000)).is_some() {}
        assert_eq!(feed.end(), Some(ms(100)));
    }

    #[test]
    fn in_real_time_the_feed_waits_only_until_the_deadline() {
        let (faces, audio, mut feed) = feed();
        faces.send(face_result(0)).unwrap();
        drop(audio);
        let deadline = Instant::now() + ms(20);
        assert!(matches!(feed.next_before(deadline), Some(Input::Face(_))));
        assert!(feed.next_before(deadline).is_none());
        assert!(Instant::now() >= deadline);
    }
}
