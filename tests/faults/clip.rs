//! A long clip made from the demo clip, with damaged frames for some time.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use affectd::capture::clip::Clip;
use affectd::capture::{AUDIO_RATE_HZ, FramePayload};

use super::matroska::{TestAudio, TestVideo, make_clip};
use super::plan::Input;
use super::random::Random;

/// Longer than any seed.
const LENGTH: Duration = Duration::from_secs(90);

struct Demo {
    frames: Vec<Vec<u8>>,
    fps: f64,
    samples: Vec<i16>,
}

fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| {
        let clip = Clip::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo.mkv")).unwrap();
        let (mut video, mut audio) = (clip.video.unwrap(), clip.audio.unwrap());
        let (mut frames, mut last) = (Vec::new(), Duration::ZERO);
        while let Some(frame) = video.next_frame().unwrap() {
            let FramePayload::Jpeg(jpeg) = frame.payload else {
                panic!("the demo clip is MJPEG");
            };
            frames.push(jpeg);
            last = frame.at;
        }
        let mut samples = Vec::new();
        while let Some(block) = audio.next_block().unwrap() {
            samples.extend(block.samples.iter().map(|sample| (sample * 32_767.0) as i16));
        }
        Demo {
            fps: (frames.len() - 1) as f64 / last.as_secs_f64(),
            frames,
            samples,
        }
    })
}

/// Writes the clip of a seed to `path`.
pub fn write(input: Input, seed: u64, path: &Path) {
    let demo = demo();
    let damaged = match input {
        Input::DamagedClip { from, until } => from..until,
        Input::Clip | Input::Absent => Duration::ZERO..Duration::ZERO,
    };
    let frame = |n: usize| {
        let jpeg = demo.frames[n % demo.frames.len()].clone();
        match damaged.contains(&Duration::from_secs_f64(n as f64 / demo.fps)) {
            true => damage(jpeg, &mut Random::new(seed ^ n as u64)),
            false => jpeg,
        }
    };
    let video = TestVideo {
        width: 640,
        height: 480,
        fps: demo.fps,
        count: (LENGTH.as_secs_f64() * demo.fps) as usize,
        frame: &frame,
    };
    let audio = TestAudio {
        rate_hz: AUDIO_RATE_HZ,
        channels: 1,
        samples: demo
            .samples
            .iter()
            .copied()
            .cycle()
            .take(LENGTH.as_secs() as usize * AUDIO_RATE_HZ as usize)
            .collect(),
    };
    std::fs::write(path, make_clip(Some(&video), Some(&audio))).unwrap();
}

fn damage(mut jpeg: Vec<u8>, random: &mut Random) -> Vec<u8> {
    match random.below(5) {
        0 => jpeg.truncate(random.below(jpeg.len())),
        1 => jpeg.clear(),
        2 => (0..64).for_each(|_| {
            let at = random.below(jpeg.len());
            jpeg[at] = random.next() as u8;
        }),
        // The header, which tells size and tables.
        3 => (0..8).for_each(|_| {
            let at = random.below(600.min(jpeg.len()));
            jpeg[at] = random.next() as u8;
        }),
        _ => jpeg.iter_mut().for_each(|byte| *byte = random.next() as u8),
    }
    jpeg
}
