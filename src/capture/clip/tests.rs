//! What clips guarantee for every file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::ebml::ids;
use super::*;
use crate::capture::error::CutCause;
use crate::capture::support::jpeg::grey_jpeg;
use crate::capture::support::matroska::*;
use crate::capture::{AudioBlock, CaptureErrorKind, VideoFrame};

/// Opens a clip without ffmpeg.
fn open_without_ffmpeg(path: &Path) -> Result<Clip, CaptureError> {
    let missing = Path::new("/nonexistent/ffmpeg");
    let tools = ffmpeg::Tools {
        ffmpeg: missing,
        ffprobe: missing,
    };
    open_with(&tools, path)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Everything that a source delivers, and its errors.
fn drain<T>(mut next: impl FnMut() -> Result<Option<T>, CaptureError>) -> (Vec<T>, Vec<CaptureError>) {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    loop {
        match next() {
            Ok(Some(item)) => all.push(item),
            Ok(None) => return (all, errors),
            Err(error) => errors.push(error),
        }
    }
}

fn frames(mut source: Box<dyn VideoSource>) -> (Vec<VideoFrame>, Vec<CaptureError>) {
    drain(|| source.next_frame())
}

fn blocks(mut source: Box<dyn AudioSource>) -> (Vec<AudioBlock>, Vec<CaptureError>) {
    drain(|| source.next_block())
}

fn sample_count(blocks: &[AudioBlock]) -> usize {
    blocks.iter().map(|block| block.samples.len()).sum()
}

fn image(i: usize) -> Vec<u8> {
    grey_jpeg(64, 48, |x, y| (x + y + 5 * i as u32) as u8)
}

/// Two seconds: ten frames per second, and a tone at 16 kHz.
fn two_seconds() -> Vec<u8> {
    let samples = (0..32_000).map(|i| (8000.0 * (i as f32 * 0.1).sin()) as i16).collect();
    let video = TestVideo {
        width: 64,
        height: 48,
        fps: 10.0,
        count: 20,
        frame: &image,
    };
    make_clip(
        Some(&video),
        Some(&TestAudio {
            rate_hz: 16_000,
            channels: 1,
            samples,
        }),
    )
}

fn wav(bits: u16, rate_hz: u32, data: &[u8], size: u32) -> Vec<u8> {
    let block = bits / 8;
    let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    wav.extend(rate_hz.to_le_bytes());
    wav.extend((rate_hz * u32::from(block)).to_le_bytes());
    wav.extend([block, bits].map(u16::to_le_bytes).concat());
    wav.extend(b"LIST\x03\0\0\0abc\0data");
    wav.extend(size.to_le_bytes());
    wav.extend_from_slice(data);
    wav
}

#[test]
fn a_matroska_clip_plays_exactly_at_its_own_times() {
    let folder = Folder::new();
    // The content decides, not the name.
    let clip = open_without_ffmpeg(&folder.file("clip.txt", &two_seconds())).unwrap();
    assert_eq!(
        clip.description,
        "clip.txt: Matroska, MJPEG 64x48, PCM 16000 Hz 1 channel"
    );
    let (frames, errors) = frames(clip.video.unwrap());
    assert_eq!((frames.len(), errors.len()), (20, 0));
    assert_eq!(frames[3].at, Duration::from_millis(300));
    let (blocks, errors) = blocks(clip.audio.unwrap());
    assert!(errors.is_empty() && blocks.iter().rev().skip(1).all(|block| block.samples.len() == 512));
    assert_eq!(blocks[2].at, Duration::from_millis(64));
    let samples: Vec<f32> = blocks.into_iter().flat_map(|block| block.samples).collect();
    let expected: Vec<f32> = (0..32_000)
        .map(|i| f32::from((8000.0 * (i as f32 * 0.1).sin()) as i16) / 32768.0)
        .collect();
    assert_eq!(samples, expected);
    for frame in frames {
        assert_eq!(frame.payload.into_luma().unwrap().width(), 64);
    }
}

#[test]
fn a_clip_may_lack_video_or_audio() {
    let folder = Folder::new();
    let video = TestVideo {
        width: 64,
        height: 48,
        fps: 10.0,
        count: 3,
        frame: &image,
    };
    let clip = open_without_ffmpeg(&folder.file("a", &make_clip(Some(&video), None))).unwrap();
    assert!(clip.video.is_some() && clip.audio.is_none());
    let audio = TestAudio {
        rate_hz: 48_000,
        channels: 2,
        samples: vec![100; 9600],
    };
    let clip = open_without_ffmpeg(&folder.file("b", &make_clip(None, Some(&audio)))).unwrap();
    assert!(clip.video.is_none());
    let (blocks, _) = blocks(clip.audio.unwrap());
    assert_eq!(sample_count(&blocks), 1600);
}

#[test]
fn a_truncated_clip_plays_up_to_the_cut_and_reports_it_once() {
    let folder = Folder::new();
    let whole = two_seconds();
    let clip = open_without_ffmpeg(&folder.file("cut.mkv", &whole[..whole.len() / 2])).unwrap();
    let (frames, errors) = frames(clip.video.unwrap());
    assert!((8..=12).contains(&frames.len()), "{} frames", frames.len());
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].kind(), CaptureErrorKind::CutShort);
    let Reason::CutShort { after, cause } = &errors[0].reason else {
        panic!("{}", errors[0]);
    };
    assert_eq!((after.as_millis() / 100, cause), (9, &CutCause::Truncated));
    assert!(
        errors[0]
            .to_string()
            .contains("cut.mkv: cut off after 0.9 s: everything before was used")
    );
    let (blocks, errors) = blocks(clip.audio.unwrap());
    assert!(sample_count(&blocks) > 14_000);
    assert_eq!(errors.len(), 1);
}

#[test]
fn a_corrupt_frame_leaves_the_others_intact() {
    let folder = Folder::new();
    let corrupt = |i| if i == 1 { image(i)[..300].to_vec() } else { image(i) };
    let video = TestVideo {
        width: 64,
        height: 48,
        fps: 10.0,
        count: 3,
        frame: &corrupt,
    };
    let clip = open_without_ffmpeg(&folder.file("a.mkv", &make_clip(Some(&video), None))).unwrap();
    let (frames, errors) = frames(clip.video.unwrap());
    let valid: Vec<bool> = frames
        .into_iter()
        .map(|frame| frame.payload.into_luma().is_ok())
        .collect();
    assert_eq!((valid, errors.len()), (vec![true, false, true], 0));
}

#[test]
fn wav_files_play_even_if_the_recorder_did_not_finish() {
    let folder = Folder::new();
    let data = [0u8; 6400];
    for (size, error_count) in [(6400, 0), (0, 0), (u32::MAX, 0), (8000, 1), (6300, 0)] {
        let clip = open_without_ffmpeg(&folder.file("a.wav", &wav(16, 16_000, &data, size))).unwrap();
        assert!(clip.video.is_none());
        assert_eq!(clip.description, "a.wav: WAV, PCM 16000 Hz 1 channel");
        let (blocks, errors) = blocks(clip.audio.unwrap());
        assert_eq!(sample_count(&blocks), if size == 6300 { 3150 } else { 3200 });
        assert_eq!(errors.len(), error_count, "the header states {size} bytes");
    }
}

#[test]
fn an_mjpeg_stream_plays_at_25_frames_per_second() {
    let folder = Folder::new();
    let stream: Vec<u8> = (0..5).flat_map(image).collect();
    let clip = open_without_ffmpeg(&folder.file("a.avi", &stream)).unwrap();
    assert!(clip.audio.is_none());
    let (frames, errors) = frames(clip.video.unwrap());
    assert_eq!((frames.len(), errors.len()), (5, 0));
    assert_eq!(frames[4].at, Duration::from_millis(160));
}

#[test]
fn clips_through_ffmpeg_play_at_their_own_times() {
    let folder = Folder::new();
    let source = folder.file("source.mkv", &two_seconds());
    let clip = folder.0.path().join("clip.avi");
    let mut ffmpeg = std::process::Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(source);
    // Drops every second frame of the first second, so that the frame rate varies.
    ffmpeg
        .args([
            "-vf",
            "select='gte(t,1)+not(mod(n,2))'",
            "-c:v",
            "mpeg4",
            "-c:a",
            "pcm_s16le",
            "-f",
            "nut",
        ])
        .arg(&clip);
    let status = ffmpeg.status().expect("ffmpeg: run cross/install-packages.sh tests");
    assert!(status.success());
    let clip = Clip::open(&clip).unwrap();
    assert!(
        clip.description.starts_with("clip.avi: through ffmpeg, "),
        "{}",
        clip.description
    );
    let (frames, errors) = frames(clip.video.unwrap());
    let times: Vec<u128> = frames.iter().map(|frame| frame.at.as_millis()).collect();
    let expected = [
        0, 200, 400, 600, 800, 1000, 1100, 1200, 1300, 1400, 1500, 1600, 1700, 1800, 1900,
    ];
    assert_eq!((&times[..], errors.len()), (&expected[..], 0));
    let (blocks, errors) = blocks(clip.audio.unwrap());
    let samples = sample_count(&blocks);
    assert!(
        errors.is_empty() && samples.abs_diff(32_000) < 1600,
        "{samples} samples"
    );
}

#[test]
fn unusable_clips_are_rejected_with_the_reason() {
    let folder = Folder::new();
    let reason = |path: &Path| {
        let error = open_without_ffmpeg(path).err().expect("it opened");
        let line = error.to_string();
        assert!(
            line.starts_with(&path.display().to_string()) && !line.contains('\n'),
            "{line}"
        );
        assert_eq!(error.kind(), CaptureErrorKind::Unusable);
        error.reason
    };
    assert_eq!(reason(Path::new("/nonexistent.mkv")), Reason::NotFound);
    assert_eq!(reason(folder.0.path()), Reason::IsDirectory);
    assert_eq!(reason(&folder.file("a", b"")), Reason::Empty);
    assert_eq!(reason(Path::new("/dev/null")), Reason::NotAFile);
    assert_eq!(reason(&folder.file("b.mkv", b"Dear diary")), Reason::FfmpegMissing);

    let tracks = |entries: &[u8]| {
        let segment = [info(), element(ids::TRACKS, entries)].concat();
        folder.file("c.mkv", &[matroska_header(), element(ids::SEGMENT, &segment)].concat())
    };
    let subtitles = track_entry(1, ids::TYPE_SUBTITLE, "S_TEXT/UTF8", Vec::new());
    assert_eq!(reason(&tracks(&subtitles)), Reason::NoTracks);
    assert_eq!(
        reason(&tracks(&video_track(1, "V_VP9", 640, 480))),
        Reason::FfmpegMissing
    );
    for (entry, expected) in [
        (video_track(1, "V_MJPEG", 0, 480), "its frames have 0x480 pixels"),
        (
            audio_track(1, "A_PCM/INT/LIT", 0.0, 1, 16),
            "it has a sample rate of 0 Hz, not 8000 to 192000",
        ),
        (
            audio_track(1, "A_PCM/INT/LIT", 16e3, 0, 16),
            "it has 0 audio channels, not 1 to 64",
        ),
    ] {
        assert_eq!(reason(&tracks(&entry)), Reason::InvalidHeader(expected.into()));
    }
    let truncated = reason(&folder.file("d.mkv", &two_seconds()[..60]));
    insta::assert_snapshot!(truncated, @"not a usable Matroska file: it ends too early");
    let truncated = reason(&folder.file("e.wav", &wav(16, 16_000, &[], 0)[..30]));
    insta::assert_snapshot!(truncated, @"not a usable WAV file: it ends before its first sample");
}

/// Plays any bytes without ffmpeg, and checks what every source guarantees.
fn play_anything(bytes: &[u8]) {
    let folder = Folder::new();
    let Ok(clip) = open_without_ffmpeg(&folder.file("any", bytes)) else {
        return;
    };
    if let Some(video) = clip.video {
        let (frames, errors) = frames(video);
        assert!(errors.len() <= 1 && frames.is_sorted_by_key(|frame| frame.at));
        for frame in frames {
            let _ = frame.payload.into_luma();
        }
    }
    if let Some(audio) = clip.audio {
        let (blocks, errors) = blocks(audio);
        assert!(errors.len() <= 1 && blocks.is_sorted_by_key(|block| block.at));
        let samples = blocks.iter().flat_map(|block| &block.samples);
        assert!(samples.into_iter().all(|sample| (-1.0..=1.0).contains(sample)));
    }
}

/// Changes a few bytes, and truncates the rest.
fn mutate(mut bytes: Vec<u8>, edits: Vec<(prop::sample::Index, u8)>, keep: Option<prop::sample::Index>) -> Vec<u8> {
    for (index, byte) in edits {
        let at = index.index(bytes.len());
        bytes[at] = byte;
    }
    if let Some(keep) = keep {
        bytes.truncate(keep.index(bytes.len()));
    }
    bytes
}

fn edits(max: usize) -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 0..max)
}

/// About where the first block of [`short_clip`] starts.
const HEADER: usize = 450;

fn short_clip() -> Vec<u8> {
    let image = |_| grey_jpeg(16, 16, |x, _| x as u8);
    let video = TestVideo {
        width: 16,
        height: 16,
        fps: 10.0,
        count: 4,
        frame: &image,
    };
    let audio = TestAudio {
        rate_hz: 44_100,
        channels: 2,
        samples: vec![1; 4000],
    };
    make_clip(Some(&video), Some(&audio))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_matroska_files_do_not_panic_and_times_never_decrease(
        header_edits in edits(4),
        block_edits in edits(8),
        keep: Option<prop::sample::Index>,
    ) {
        let mut header = short_clip();
        let blocks = header.split_off(HEADER);
        // Edits the header separately, because damage there has the largest effect.
        let clip = [mutate(header, header_edits, None), blocks].concat();
        play_anything(&mutate(clip, block_edits, keep));
    }

    #[test]
    fn damaged_wav_files_do_not_panic(edits in edits(6), keep: Option<prop::sample::Index>) {
        play_anything(&mutate(wav(16, 44_100, &[0; 60], 60), edits, keep));
    }

    #[test]
    fn damaged_mjpeg_streams_do_not_panic(edits in edits(12), keep: Option<prop::sample::Index>) {
        let stream: Vec<u8> = (0..3).flat_map(|_| grey_jpeg(16, 16, |x, y| (x * y) as u8)).collect();
        play_anything(&mutate(stream, edits, keep));
    }

    #[test]
    fn noise_after_any_magic_number_does_not_panic(
        magic in prop::sample::select(vec![
            matroska::MAGIC.to_vec(),
            b"RIFF\0\0\0\0WAVE".to_vec(),
            vec![0xFF, 0xD8, 0xFF],
            short_clip()[..HEADER].to_vec(),
        ]),
        noise in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        play_anything(&[magic, noise].concat());
    }
}
