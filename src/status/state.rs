//! What the tasks of the page share: what has come from the pipeline, and what a request needs.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::header::HeaderValue;
use tokio::sync::broadcast;

use super::connections::Connections;
use super::context::{OutputState, StatusContext};
use super::events::{self, HealthEvent, Hello, StageTimes};
use super::guard::Guard;
use super::history::History;
use super::page::Page;
use super::readiness;
use super::settings::Preview;
use crate::fusion::Estimate;
use crate::health::{BusyTime, Health};
use crate::output::estimate_rate::EstimateRate;
use crate::output::wall_clock::WallClock;

/// Events that a slow stream may be behind. Then it misses the oldest.
const EVENT_QUEUE: usize = 8;

/// How often a new page looks at the outputs, a millisecond apart, until it finds their list free.
const FIRST_LOOKS: u32 = 100;

/// All that the tasks share.
pub struct State {
    pub context: StatusContext,
    pub guard: Guard,
    pub connections: Connections,
    pub html: Bytes,
    pub policy: HeaderValue,
    pub started: Instant,
    pub preview: Preview,
    events: broadcast::Sender<Bytes>,
    recent: Mutex<Recent>,
}

/// What has come from the pipeline.
#[derive(Default)]
struct Recent {
    history: History,
    last: Option<Arc<Estimate>>,
    arrived: Option<Instant>,
    rate: EstimateRate,
    outputs: Vec<OutputState>,
}

impl State {
    pub fn new(context: StatusContext, preview: Preview, guard: Guard) -> State {
        let page = Page::new();
        let recent = Recent {
            outputs: first_outputs(&context),
            ..Recent::default()
        };
        State {
            context,
            guard,
            connections: Connections::default(),
            html: page.html,
            policy: HeaderValue::try_from(page.policy).expect("the policy is plain ASCII"),
            started: Instant::now(),
            preview,
            events: broadcast::Sender::new(EVENT_QUEUE),
            recent: Mutex::new(recent),
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Bytes> {
        self.events.subscribe()
    }

    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn last_estimate(&self) -> Option<Arc<Estimate>> {
        self.recent().last.clone()
    }

    /// The outputs as of now, or as of before if their list is in use.
    pub fn outputs(&self) -> Vec<OutputState> {
        let mut recent = self.recent();
        if let Some(outputs) = (self.context.outputs)() {
            recent.outputs = outputs;
        }
        recent.outputs.clone()
    }

    pub fn with_rate<T>(&self, use_rate: impl FnOnce(&mut EstimateRate) -> T) -> T {
        use_rate(&mut self.recent().rate)
    }

    pub fn why_not_ready(&self) -> Option<String> {
        let silence = self.recent().arrived.map(|arrived| arrived.elapsed());
        readiness::why_not_ready(silence, &self.context.health)
    }

    pub fn problem(&self) -> Option<String> {
        readiness::problem(&self.context.health)
    }

    /// The first events of a stream.
    pub fn greeting(&self) -> Bytes {
        let mut greeting = {
            let recent = self.recent();
            let hello = Hello::new(&self.context, self.preview, recent.last.as_deref(), &recent.history);
            events::event("hello", &hello).to_vec()
        };
        greeting.extend_from_slice(&self.health());
        greeting.into()
    }

    /// The event `health`.
    fn health(&self) -> Bytes {
        let health = &self.context.health;
        events::event(
            "health",
            &HealthEvent {
                report: self.context.live_health.report(),
                at_s: self.uptime().as_secs_f64(),
                not_ready: self.why_not_ready(),
                paused: self.context.pause.is_paused(),
                stages_ms: stage_times(health),
                outputs: self.outputs(),
            },
        )
    }

    /// Sends the event `health` to all streams. Called each second.
    pub fn send_health(&self) {
        // No frame comes that would replace the last one.
        if self.context.pause.is_paused() {
            self.context.image.forget();
        }
        if self.events.receiver_count() > 0 {
            let _ = self.events.send(self.health());
        }
    }

    /// Records an estimate, and sends it to all streams.
    pub fn add(&self, estimate: Arc<Estimate>, wall: &mut WallClock) {
        let is_due = {
            let mut recent = self.recent();
            recent.history.add(&estimate);
            recent.arrived = Some(Instant::now());
            recent.last = Some(Arc::clone(&estimate));
            recent.rate.is_due(estimate.at, self.context.period)
        };
        if is_due && self.events.receiver_count() > 0 {
            let event = events::estimate(&estimate, self.preview, Instant::now(), wall.now());
            // The last stream may have ended in this moment.
            let _ = self.events.send(event);
        }
    }
}

/// The outputs at the start. Their list is in use for moments only.
fn first_outputs(context: &StatusContext) -> Vec<OutputState> {
    let look = |_| {
        let outputs = (context.outputs)();
        if outputs.is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        outputs
    };
    (0..FIRST_LOOKS).find_map(look).unwrap_or_default()
}

fn stage_times(health: &Health) -> StageTimes {
    let mean_ms = |busy: &BusyTime, count: u64| {
        let ms = busy.total().as_secs_f64() * 1000.0 / count as f64;
        ms.is_finite().then(|| (ms * 100.0).round() / 100.0)
    };
    let estimates = health.estimates.load(Ordering::Relaxed);
    StageTimes {
        face: mean_ms(&health.face_busy, health.frames_analyzed.load(Ordering::Relaxed)),
        voice: mean_ms(&health.voice_busy, estimates),
        fusion: mean_ms(&health.fusion_busy, estimates),
    }
}
