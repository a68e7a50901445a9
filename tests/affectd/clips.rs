//! Clips of every format that users may have.

use std::f32::consts::TAU;

use affectd::capture::FramePayload;
use affectd::capture::clip::Clip;

use super::jpeg::grey_jpeg;
use super::matroska::{TestAudio, TestVideo, make_clip};
use super::{Replay, affectd, demo, file};

fn tone(rate_hz: u32, channels: u16, seconds: f32) -> TestAudio {
    let count = (rate_hz as f32 * seconds) as usize;
    let sample = |n: usize| (8000.0 * (TAU * 440.0 * n as f32 / rate_hz as f32).sin()) as i16;
    TestAudio {
        rate_hz,
        channels,
        samples: (0..count)
            .flat_map(|n| std::iter::repeat_n(sample(n), channels.into()))
            .collect(),
    }
}

fn video<'a>(count: usize, frame: &'a dyn Fn(usize) -> Vec<u8>) -> TestVideo<'a> {
    TestVideo {
        width: 64,
        height: 48,
        fps: 25.0,
        count,
        frame,
    }
}

/// A frame without a face.
fn wall(_: usize) -> Vec<u8> {
    grey_jpeg(64, 48, |x, y| (x * 2 + y) as u8)
}

#[test]
fn audio_of_any_rate_and_channel_count_keeps_its_level_and_length() {
    let folder = tempfile::tempdir().unwrap();
    for (rate_hz, channels) in [(8_000, 1), (16_000, 1), (44_100, 2), (48_000, 2), (96_000, 6)] {
        let clip = make_clip(None, Some(&tone(rate_hz, channels, 2.0)));
        let replay = Replay::of(&file(&folder, "tone.mkv", &clip));
        assert_eq!(replay.code, Some(0), "{}", replay.log);
        assert_eq!(replay.lines.len(), 10, "{rate_hz} Hz, {channels} channels");
        for line in &replay.lines[1..9] {
            // A sine of amplitude 8000: 20 lg(8000 / 32768 / √2).
            let level = line["voice"]["level_db"].as_f64().unwrap();
            assert!(
                (level + 15.3).abs() < 0.3,
                "{rate_hz} Hz, {channels} channels: {level} dB"
            );
        }
    }
}

#[test]
fn a_clip_without_audio_has_no_voice_and_one_without_video_no_face() {
    let folder = tempfile::tempdir().unwrap();
    let silent = make_clip(Some(&video(25, &wall)), None);
    let replay = Replay::of(&file(&folder, "silent.mkv", &silent));
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    assert_eq!(replay.lines.len(), 4);
    assert!(replay.lines.iter().all(|line| line["voice"].is_null()));

    let audio_only = make_clip(None, Some(&tone(16_000, 1, 1.0)));
    let replay = Replay::of(&file(&folder, "audio.mkv", &audio_only));
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    assert_eq!(replay.lines.len(), 5);
    assert!(replay.lines.iter().all(|line| line["face"].is_null()));
}

#[test]
fn a_wall_and_silence_give_estimates_without_face_or_voice() {
    let folder = tempfile::tempdir().unwrap();
    let quiet = TestAudio {
        rate_hz: 16_000,
        channels: 1,
        samples: (0..19_200i32).map(|n| (n * 7919 % 13 - 6) as i16).collect(),
    };
    let clip = make_clip(Some(&video(30, &wall)), Some(&quiet));
    let replay = Replay::of(&file(&folder, "wall.mkv", &clip));
    assert_eq!(replay.count(&[]), 6, "{:?}", replay.lines);
}

#[test]
fn an_mjpeg_stream_is_a_clip() {
    let folder = tempfile::tempdir().unwrap();
    let stream: Vec<u8> = (0..25).flat_map(wall).collect();
    let replay = Replay::of(&file(&folder, "stream.mjpeg", &stream));
    assert_eq!((replay.code, replay.lines.len()), (Some(0), 4), "{}", replay.log);
}

#[test]
fn a_stream_that_was_saved_from_http_lasts_as_long_as_its_time_stamps_say() {
    let folder = tempfile::tempdir().unwrap();
    let part = |i: usize| {
        let stamp = 1_700_000_000.0 + i as f64 * 0.2;
        let header = format!("--b\r\nContent-Type: image/jpeg\r\nX-Timestamp: {stamp:.6}\r\n\r\n");
        [header.as_bytes(), &wall(i), b"\r\n"].concat()
    };
    let stream: Vec<u8> = (0..11).flat_map(part).collect();
    let replay = Replay::of(&file(&folder, "stream.mjpeg", &stream));
    assert_eq!((replay.code, replay.lines.len()), (Some(0), 10), "{}", replay.log);
}

#[test]
fn a_corrupt_frame_is_skipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let frame = |i: usize| match i {
        5 => vec![0xFF, 0xD8, 0x12, 0x34],
        _ => wall(i),
    };
    let clip = make_clip(Some(&video(25, &frame)), None);
    let replay = Replay::of(&file(&folder, "bad.mkv", &clip));
    assert_eq!((replay.code, replay.lines.len()), (Some(0), 4), "{}", replay.log);
    assert!(
        replay.log.contains("frame at 0.200 s skipped: undecodable image: "),
        "{}",
        replay.log
    );
    assert!(replay.log.contains("; undecodable frames: 1;"), "{}", replay.log);
}

#[test]
fn a_face_stays_in_view_while_some_frames_are_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let mut video = Clip::open(&demo()).unwrap().video.unwrap();
    let mut next = || match video.next_frame().unwrap().unwrap().payload {
        FramePayload::Jpeg(bytes) => bytes,
        _ => panic!("the demo clip has JPEG images"),
    };
    let mut frames: Vec<Vec<u8>> = (0..45).map(|_| next()).collect();
    // As at a bad USB port. Every third frame is due at five frames a second.
    for torn in frames.iter_mut().step_by(3) {
        torn.truncate(torn.len() / 2);
    }
    let frame = |n: usize| frames[n].clone();
    let torn = TestVideo {
        width: 640,
        height: 480,
        fps: 15.0,
        count: frames.len(),
        frame: &frame,
    };
    let clip = file(&folder, "torn.mkv", &make_clip(Some(&torn), None));
    let run = affectd()
        .args(["run", "--input"])
        .arg(clip)
        .env("AFFECTD_FACE_RATE_HZ", "5")
        .output();
    let replay = Replay::from(run.unwrap());
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    let without_face = replay.lines[1..].iter().filter(|line| line["face"].is_null()).count();
    assert_eq!((replay.lines.len(), without_face), (14, 0), "{}", replay.log);
}

#[test]
fn frames_up_to_8k_are_processed_and_larger_ones_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let of_size = |width: u16, height: u16| {
        let frame = move |_: usize| grey_jpeg(width, height, |x, y| (x / 64 + y / 64) as u8);
        let one = TestVideo {
            width,
            height,
            fps: 1.0,
            count: 1,
            frame: &frame,
        };
        make_clip(Some(&one), Some(&tone(16_000, 1, 0.5)))
    };
    let replay = Replay::of(&file(&folder, "8k.mkv", &of_size(7680, 4320)));
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    assert!(replay.log.contains("1 analyzed"), "{}", replay.log);
    let replay = Replay::of(&file(&folder, "9k.mkv", &of_size(8704, 4320)));
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    assert!(
        replay.log.contains("8704×4320 is larger than 7680×4320"),
        "{}",
        replay.log
    );
}

#[test]
fn a_truncated_clip_gives_estimates_up_to_the_cut_and_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(demo()).unwrap();
    let replay = Replay::of(&file(&folder, "cut.mkv", &whole[..whole.len() / 2]));
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    assert!(
        replay.lines.len() > 10 && replay.lines.len() < 45,
        "{}",
        replay.lines.len()
    );
    assert!(
        replay.log.contains("WARN") && replay.log.contains("cut.mkv"),
        "{}",
        replay.log
    );
}

#[test]
fn in_real_time_a_clip_gives_about_as_many_estimates_as_in_a_replay() {
    let folder = tempfile::tempdir().unwrap();
    let clip = make_clip(Some(&video(30, &wall)), Some(&tone(16_000, 1, 1.2)));
    let clip = file(&folder, "short.mkv", &clip);
    let run = affectd()
        .args(["run", "--realtime", "--input"])
        .arg(&clip)
        .output()
        .unwrap();
    let (realtime, replayed) = (Replay::from(run).lines.len(), Replay::of(&clip).lines.len());
    // On a busy machine, the end may be noticed a tick late.
    assert!(
        (replayed..=replayed + 2).contains(&realtime),
        "{realtime} and {replayed} lines"
    );
}

#[test]
fn clips_of_other_formats_are_decoded_by_ffmpeg() {
    let folder = tempfile::tempdir().unwrap();
    let mp4 = folder.path().join("clip.mp4");
    let status = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(demo())
        .args(["-t", "2", "-c:v", "mpeg4", "-c:a", "aac"])
        .arg(&mp4)
        .status()
        .expect("ffmpeg: run cross/install-packages.sh tests");
    assert!(status.success());
    let replay = Replay::of(&mp4);
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    assert!(replay.count(&["face"]) + replay.count(&["face", "voice"]) >= 8);
}

/// Runs ffmpeg with these arguments, between options and the output file.
fn ffmpeg(args: &[&str], output: &std::path::Path) {
    let status = std::process::Command::new("ffmpeg")
        .args(["-v", "error"])
        .args(args)
        .arg(output)
        .status()
        .expect("ffmpeg: run cross/install-packages.sh tests");
    assert!(status.success());
}

#[test]
fn tracks_that_start_at_different_times_stay_in_step() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo();
    let demo = demo.to_str().unwrap();
    for name in ["late.ts", "late.mpg", "late.mp4", "late.mkv"] {
        let clip = folder.path().join(name);
        let inputs = ["-t", "4", "-i", demo, "-itsoffset", "1.5", "-t", "2", "-i", demo];
        let codecs = [
            "-map",
            "0:v",
            "-map",
            "1:a",
            "-c:v",
            "mpeg2video",
            "-c:a",
            "mp2",
            "-ar",
            "32000",
        ];
        ffmpeg(&[&inputs[..], &codecs].concat(), &clip);
        let replay = Replay::of(&clip);
        let first_voice = replay
            .lines
            .iter()
            .find(|line| !line["voice"].is_null())
            .expect("a voice");
        let at = first_voice["t"].as_f64().unwrap();
        assert!((1.5..=1.9).contains(&at), "{name}: {at}");
        let first_face = replay
            .lines
            .iter()
            .find(|line| !line["face"].is_null())
            .expect("a face");
        assert!(first_face["t"].as_f64().unwrap() <= 0.6, "{name}");
    }
}

#[test]
fn a_track_that_cannot_be_decoded_is_left_out_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("two.mp4");
    let demo = demo();
    let two_tracks = [
        "-map", "0:v", "-map", "0:a", "-map", "0:a", "-c:v", "mpeg4", "-c:a", "aac",
    ];
    ffmpeg(
        &[&["-t", "2", "-i", demo.to_str().unwrap()][..], &two_tracks].concat(),
        &clip,
    );
    let mut bytes = std::fs::read(&clip).unwrap();
    // An unknown codec for the first of the audio tracks.
    let mut at = 0;
    for (known, unknown) in [(b"mp4a", b"xxxx"), (b"esds", b"free")] {
        at += bytes[at..].windows(4).position(|four| four == known).unwrap();
        bytes[at..at + 4].copy_from_slice(unknown);
    }
    std::fs::write(&clip, bytes).unwrap();
    let replay = Replay::of(&clip);
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    assert!(replay.log.contains("is left out"), "{}", replay.log);
    assert!(
        replay.count(&["face", "voice"]) + replay.count(&["voice"]) > 0,
        "{}",
        replay.log
    );
}

#[test]
fn frames_with_pixels_that_are_not_square_are_converted() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo();
    let narrow = folder.path().join("narrow.mkv");
    let filter = [
        "-t",
        "2",
        "-i",
        demo.to_str().unwrap(),
        "-an",
        "-vf",
        "scale=320:480,setsar=2",
        "-c:v",
        "mjpeg",
    ];
    ffmpeg(&filter, &narrow);
    let replay = Replay::of(&narrow);
    assert!(replay.log.contains("through ffmpeg"), "{}", replay.log);
    let face = |line: &serde_json::Value| line["face"]["box"].as_array().map(|sides| sides[2].as_f64().unwrap());
    let narrow = replay.lines.iter().rev().find_map(face).expect("a face");
    let plain = Replay::of(&super::demo()).lines[..10]
        .iter()
        .rev()
        .find_map(face)
        .expect("a face");
    assert!((narrow - plain).abs() < 0.02, "{narrow}, {plain}");
}

#[test]
fn a_single_image_gets_one_estimate() {
    let folder = tempfile::tempdir().unwrap();
    let replay = Replay::of(&file(&folder, "still.jpg", &wall(0)));
    assert_eq!((replay.code, replay.lines.len()), (Some(0), 1), "{}", replay.log);
    let still = make_clip(Some(&video(1, &wall)), None);
    let replay = Replay::of(&file(&folder, "still.mkv", &still));
    assert_eq!((replay.code, replay.lines.len()), (Some(0), 1), "{}", replay.log);
}

#[test]
fn a_long_gap_of_all_tracks_has_no_estimates() {
    let folder = tempfile::tempdir().unwrap();
    let rare = TestVideo {
        fps: 1.0 / 600.0,
        ..video(4, &wall)
    };
    let replay = Replay::of(&file(&folder, "rare.mkv", &make_clip(Some(&rare), None)));
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    assert!((4..40).contains(&replay.lines.len()), "{} lines", replay.lines.len());
    assert_eq!(replay.lines.last().unwrap()["t"], 1800.0);
    assert!(replay.log.contains("has a gap of"), "{}", replay.log);
}

#[test]
fn without_ffmpeg_the_error_says_how_to_install_it() {
    let folder = tempfile::tempdir().unwrap();
    let mp4 = folder.path().join("clip.mp4");
    std::fs::write(&mp4, b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41").unwrap();
    let output = affectd()
        .args(["run", "--input"])
        .arg(&mp4)
        .env("PATH", folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("apt-get install ffmpeg"), "{log}");
}

#[test]
fn a_pattern_names_numbered_images_and_a_file_named_like_one_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let pattern = folder.path().join("a%02d.png");
    let image = |filter: &str, count: &str, to: &std::path::Path| {
        ffmpeg(
            &["-f", "lavfi", "-i", filter, "-frames:v", count, "-start_number", "1"],
            to,
        );
    };
    image("color=gray:s=64x48:r=25", "25", &pattern);
    let replay = Replay::of(&pattern);
    assert_eq!((replay.code, replay.lines.len()), (Some(0), 4), "{}", replay.log);
    assert!(
        replay.log.contains("a%02d.png: through ffmpeg, png 64x48"),
        "{}",
        replay.log
    );

    let single = folder.path().join("single.png");
    image("color=gray:s=32x32", "1", &single);
    std::fs::rename(&single, &pattern).unwrap();
    let replay = Replay::of(&pattern);
    assert_eq!((replay.code, replay.lines.len()), (Some(0), 1), "{}", replay.log);
    assert!(
        replay.log.contains("a%02d.png: through ffmpeg, png 32x32"),
        "{}",
        replay.log
    );

    let replay = Replay::of(&folder.path().join("b%02d.png"));
    assert_eq!(replay.code, Some(3));
    assert_eq!(
        replay.error(folder.path()),
        "affectd: b%02d.png: no such file: check the path of the clip"
    );
}
