//! Reloads, with frames that come from the test instead of a camera.

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::thread;

use super::*;
use crate::capture::clip::Clip;
use crate::config::{Flags, Layers};
use crate::daemon::output_threads::OutputPlan;
use crate::health::Health;
use crate::output::HostIdentity;
use crate::privacy::PauseSwitch;

/// Far longer than any step takes, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A configuration with an absent camera, and with an output that is a file in `folder`.
fn config(folder: &Path, face_rate_hz: f32) -> Config {
    let file = folder.join("affectd.toml");
    let estimates = folder.join("estimates");
    let text = format!(
        "output = [\"file:{}\"]\ncamera.device = \"/dev/video-none\"\nmicrophone.device = \"off\"\nface.rate_hz = {face_rate_hz}\n",
        estimates.display()
    );
    std::fs::write(&file, text).unwrap();
    let layers = Layers {
        file: Some(&file),
        variables: &[],
        flags: Flags::default(),
    };
    Config::load(&layers, &HostIdentity::default()).unwrap()
}

/// Sends frames of the demo clip, which begins with a face, until one more of them shows a face.
fn show_a_face(pipeline: &Pipeline, first_frame: &mut Duration) {
    let shown = || pipeline.health.frames_with_face.load(Ordering::Relaxed);
    let analyzed = || pipeline.health.frames_analyzed.load(Ordering::Relaxed);
    let (before, started) = (shown(), Instant::now());
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo.mkv");
    while shown() == before {
        let analyzed_before = analyzed();
        let mut video = Clip::open(&demo).unwrap().video.unwrap();
        for _ in 0..25 {
            let mut frame = video.next_frame().unwrap().unwrap();
            frame.captured = Instant::now();
            frame.at += *first_frame;
            pipeline.frames.send(frame).unwrap();
        }
        *first_frame += Duration::from_secs(1);
        while analyzed() == analyzed_before {
            assert!(started.elapsed() < TIMEOUT, "no face: {}", pipeline.health);
            thread::yield_now();
        }
    }
}

/// Lets the threads end if the test fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_reload_that_rebuilds_the_face_stage_uses_no_face_id_again() {
    let folder = tempfile::tempdir().unwrap();
    let health = Arc::new(Health::default());
    let (stop, pause) = (AtomicBool::new(false), Arc::<PauseSwitch>::default());
    let pipeline = Pipeline {
        epoch: Instant::now(),
        pace: Pace::Realtime,
        health: &health,
        stop: &stop,
        restart: AtomicBool::new(false),
        fault: None,
        pause: &pause,
        light: Default::default(),
        frames: Default::default(),
        audio: Default::default(),
        last_seq: AtomicU64::new(0),
        last_face_id: AtomicU32::new(0),
        preview: Arc::default(),
    };
    let threads = ThreadGroup::new(&stop);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let first = config(folder.path(), 10.0);
        let (sources, pace) = Sources::open(&first.source, &stop).unwrap().unwrap();
        let stages = Stages::load_until(&stop, &first, sources.kinds(), &mut || {}).unwrap();
        let outputs = OutputThreads::start(
            scope,
            &threads,
            &health,
            &OutputPlan {
                specs: &first.outputs,
                period: first.fusion.period,
                when_full: when_full(pace),
            },
            &pause,
            &Arc::default(),
        );
        let outputs = outputs.unwrap();
        let model = ModelName::default();
        let prepared = PreparedPage::new(None, &HostIdentity::default(), None).unwrap();
        let page = StatusPage::start(
            prepared,
            outputs.status_context(model.clone(), Arc::clone(&pipeline.preview)),
        )
        .unwrap();
        let readers = Readers { outputs, page, model };
        let mut daemon = Daemon::start(scope, &pipeline, &threads, readers, first, sources, stages);
        let mut ids = Vec::new();
        let mut at = Duration::ZERO;
        for face_rate_hz in [5.0, 10.0, 5.0] {
            show_a_face(&pipeline, &mut at);
            ids.push(pipeline.last_face_id.load(Ordering::Relaxed));
            let changed = || Ok(config(folder.path(), face_rate_hz));
            let off_hours = RefCell::new(OffHoursWatch::new(Default::default()));
            daemon.reload(&changed, &off_hours, &mut || {}).unwrap();
        }
        // Each of the three stages saw the same face as a new one.
        assert!(ids[0] > 0 && ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    });
    assert!(threads.result().is_ok());
}
