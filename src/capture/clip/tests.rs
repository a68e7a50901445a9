//! What a user of clips can rely on, whatever the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::capture::support::jpeg::grey_jpeg;
use crate::capture::support::matroska::*;
use crate::capture::{AudioBlock, VideoFrame};

/// Tools that are not there: what the test opens must do without.
fn open_bare(path: &Path) -> Result<Clip, CaptureError> {
    let nowhere = Path::new("/nonexistent/ffmpeg");
    open_with(
        &ffmpeg::Tools {
            ffmpeg: nowhere,
            ffprobe: nowhere,
        },
        path,
    )
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

/// Everything a source has, and the errors on the way.
fn frames(source: &mut dyn VideoSource) -> (Vec<VideoFrame>, Vec<String>) {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    loop {
        match source.next_frame() {
            Ok(Some(frame)) => all.push(frame),
            Ok(None) => return (all, errors),
            Err(err) => errors.push(err.to_string()),
        }
    }
}

fn chunks(source: &mut dyn AudioSource) -> (Vec<AudioBlock>, Vec<String>) {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    loop {
        match source.next_block() {
            Ok(Some(chunk)) => all.push(chunk),
            Ok(None) => return (all, errors),
            Err(err) => errors.push(err.to_string()),
        }
    }
}

fn picture(i: usize) -> Vec<u8> {
    grey_jpeg(64, 48, |x, y| (x + y + 5 * i as u32) as u8)
}

/// Two seconds: ten pictures a second, a tone at 16 kHz.
fn two_seconds() -> Vec<u8> {
    let samples = (0..32_000).map(|i| (8000.0 * (i as f32 * 0.1).sin()) as i16).collect();
    let pictures = Pictures {
        width: 64,
        height: 48,
        fps: 10.0,
        count: 20,
        picture: &picture,
    };
    make_clip(
        Some(&pictures),
        Some(&Samples {
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
fn a_matroska_clip_plays_at_its_own_times_bit_by_bit() {
    let folder = Folder::new();
    // Content decides, not the name.
    let clip = open_bare(&folder.file("clip.txt", &two_seconds())).unwrap();
    assert_eq!(
        clip.description,
        "clip.txt: Matroska, MJPEG 64x48, PCM 16000 Hz 1 channel"
    );
    let (frames, errors) = frames(&mut *clip.video.unwrap());
    assert_eq!((frames.len(), errors.len()), (20, 0));
    assert_eq!(frames[3].at, Duration::from_millis(300));
    let (chunks, errors) = chunks(&mut *clip.audio.unwrap());
    assert!(errors.is_empty() && chunks.iter().rev().skip(1).all(|chunk| chunk.samples.len() == 512));
    assert_eq!(chunks[2].at, Duration::from_millis(64));
    let samples: Vec<f32> = chunks.into_iter().flat_map(|chunk| chunk.samples).collect();
    let wanted: Vec<f32> = (0..32_000)
        .map(|i| f32::from((8000.0 * (i as f32 * 0.1).sin()) as i16) / 32768.0)
        .collect();
    assert_eq!(samples, wanted);
    for frame in frames {
        assert_eq!(frame.picture.into_luma().unwrap().width(), 64);
    }
}

#[test]
fn a_missing_track_is_simply_missing() {
    let folder = Folder::new();
    let pictures = Pictures {
        width: 64,
        height: 48,
        fps: 10.0,
        count: 3,
        picture: &picture,
    };
    let clip = open_bare(&folder.file("a", &make_clip(Some(&pictures), None))).unwrap();
    assert!(clip.video.is_some() && clip.audio.is_none());
    let samples = Samples {
        rate_hz: 48_000,
        channels: 2,
        samples: vec![100; 9600],
    };
    let clip = open_bare(&folder.file("b", &make_clip(None, Some(&samples)))).unwrap();
    assert!(clip.video.is_none());
    let (chunks, _) = chunks(&mut *clip.audio.unwrap());
    assert_eq!(chunks.iter().map(|chunk| chunk.samples.len()).sum::<usize>(), 1600);
}

#[test]
fn a_clip_cut_off_gives_what_is_there_then_says_so_once() {
    let folder = Folder::new();
    let whole = two_seconds();
    let clip = open_bare(&folder.file("cut.mkv", &whole[..whole.len() / 2])).unwrap();
    let (frames, errors) = frames(&mut *clip.video.unwrap());
    assert!((8..=12).contains(&frames.len()), "{} pictures", frames.len());
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].contains("cut.mkv: cut off after 0.9 s, what came before was used"),
        "{}",
        errors[0]
    );
    let (chunks, errors) = chunks(&mut *clip.audio.unwrap());
    assert!(chunks.iter().map(|chunk| chunk.samples.len()).sum::<usize>() > 14_000);
    assert_eq!(errors.len(), 1);
}

#[test]
fn one_broken_picture_costs_only_itself() {
    let folder = Folder::new();
    let broken = |i| {
        if i == 1 { picture(i)[..300].to_vec() } else { picture(i) }
    };
    let pictures = Pictures {
        width: 64,
        height: 48,
        fps: 10.0,
        count: 3,
        picture: &broken,
    };
    let clip = open_bare(&folder.file("a.mkv", &make_clip(Some(&pictures), None))).unwrap();
    let (frames, errors) = frames(&mut *clip.video.unwrap());
    let whole: Vec<bool> = frames
        .into_iter()
        .map(|frame| frame.picture.into_luma().is_ok())
        .collect();
    assert_eq!((whole, errors.len()), (vec![true, false, true], 0));
}

#[test]
fn wav_files_play_and_forgive_recorders_that_did_not_finish() {
    let folder = Folder::new();
    let data = [0u8; 6400];
    for (size, complaints) in [(6400, 0), (0, 0), (u32::MAX, 0), (8000, 1), (6300, 0)] {
        let clip = open_bare(&folder.file("a.wav", &wav(16, 16_000, &data, size))).unwrap();
        assert!(clip.video.is_none());
        assert_eq!(clip.description, "a.wav: WAV, PCM 16000 Hz 1 channel");
        let (chunks, errors) = chunks(&mut *clip.audio.unwrap());
        let samples: usize = chunks.iter().map(|chunk| chunk.samples.len()).sum();
        assert_eq!(samples, if size == 6300 { 3150 } else { 3200 });
        assert_eq!(errors.len(), complaints, "header says {size} bytes");
    }
}

#[test]
fn a_bare_mjpeg_stream_plays_at_25_pictures_a_second() {
    let folder = Folder::new();
    let stream: Vec<u8> = (0..5).flat_map(picture).collect();
    let clip = open_bare(&folder.file("a.avi", &stream)).unwrap();
    assert!(clip.audio.is_none());
    let (frames, errors) = frames(&mut *clip.video.unwrap());
    assert_eq!((frames.len(), errors.len()), (5, 0));
    assert_eq!(frames[4].at, Duration::from_millis(160));
}

#[test]
fn what_needs_ffmpeg_plays_at_its_own_times_too() {
    let folder = Folder::new();
    let source = folder.file("source.mkv", &two_seconds());
    let clip = folder.0.path().join("clip.avi");
    let mut ffmpeg = std::process::Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(source);
    // Every second picture of the first second only: what is left has no constant rate.
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
    let (frames, errors) = frames(&mut *clip.video.unwrap());
    let times: Vec<u128> = frames.iter().map(|frame| frame.at.as_millis()).collect();
    let wanted = [
        0, 200, 400, 600, 800, 1000, 1100, 1200, 1300, 1400, 1500, 1600, 1700, 1800, 1900,
    ];
    assert_eq!((&times[..], errors.len()), (&wanted[..], 0));
    let (chunks, errors) = chunks(&mut *clip.audio.unwrap());
    let samples: usize = chunks.iter().map(|chunk| chunk.samples.len()).sum();
    assert!(
        errors.is_empty() && samples.abs_diff(32_000) < 1600,
        "{samples} samples"
    );
}

#[test]
fn what_cannot_be_played_is_refused_in_one_line_with_the_mend() {
    let folder = Folder::new();
    let refusal = |path: &Path| {
        let err = open_bare(path).err().expect("it opened").to_string();
        assert!(
            err.starts_with(&path.display().to_string()) && !err.contains('\n'),
            "{err}"
        );
        err[path.display().to_string().len()..].to_owned()
    };
    assert_eq!(
        refusal(Path::new("/nonexistent.mkv")),
        ": no such file: check the path of the clip"
    );
    assert_eq!(refusal(folder.0.path()), ": is a directory: name a clip in it");
    assert_eq!(
        refusal(&folder.file("a", b"")),
        ": is empty: record or copy the clip again"
    );
    assert!(refusal(Path::new("/dev/null")).starts_with(": is not a regular file"));
    assert!(refusal(&folder.file("b.mkv", b"Dear diary")).ends_with("sudo apt-get install ffmpeg"));

    let tracks = |entries: &[u8]| {
        let segment = [info(), element(0x1654_AE6B, entries)].concat();
        folder.file("c.mkv", &[ebml_header(), element(0x1853_8067, &segment)].concat())
    };
    let subtitles = track_entry(1, 17, "S_TEXT/UTF8", Vec::new());
    assert_eq!(
        refusal(&tracks(&subtitles)),
        ": has neither pictures nor sound: try another clip"
    );
    let foreign = refusal(&tracks(&video_track(1, "V_VP9", 640, 480)));
    assert!(foreign.ends_with("sudo apt-get install ffmpeg"));
    let damaged = ": the clip is damaged; record or export it again";
    for (entry, reason) in [
        (video_track(1, "V_MJPEG", 0, 480), ": its picture is 0x480 pixels large"),
        (
            audio_track(1, "A_PCM/INT/LIT", 0.0, 1, 16),
            ": it has a sample rate of 0 Hz, not 8000 to 192000",
        ),
        (
            audio_track(1, "A_PCM/INT/LIT", 16e3, 0, 16),
            ": it has 0 channels of sound, not 1 to 64",
        ),
    ] {
        assert_eq!(refusal(&tracks(&entry)), format!("{reason}{damaged}"));
    }
    let torn = refusal(&folder.file("d.mkv", &two_seconds()[..60]));
    assert_eq!(
        torn,
        format!(": not a usable Matroska file: cut off: it ends too early{damaged}")
    );
    let torn = refusal(&folder.file("e.wav", &wav(16, 16_000, &[], 0)[..30]));
    assert_eq!(
        torn,
        format!(": not a usable WAV file: it ends before its first sample{damaged}")
    );
}

/// Plays whatever `bytes` are, without ffmpeg, and checks what every source promises.
fn play_anything(bytes: &[u8]) {
    let folder = Folder::new();
    let Ok(clip) = open_bare(&folder.file("any", bytes)) else {
        return;
    };
    if let Some(mut video) = clip.video {
        let (frames, errors) = frames(&mut *video);
        assert!(errors.len() <= 1 && frames.is_sorted_by_key(|frame| frame.at));
        for frame in frames {
            let _ = frame.picture.into_luma();
        }
    }
    if let Some(mut audio) = clip.audio {
        let (chunks, errors) = chunks(&mut *audio);
        assert!(errors.len() <= 1 && chunks.is_sorted_by_key(|chunk| chunk.at));
        let samples = chunks.iter().flat_map(|chunk| &chunk.samples);
        assert!(samples.into_iter().all(|sample| (-1.0..=1.0).contains(sample)));
    }
}

/// `bytes` with a few of them changed, and cut off.
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

fn edits(most: usize) -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 0..most)
}

/// Roughly where the first block of [`short_clip`] begins.
const HEADER: usize = 450;

fn short_clip() -> Vec<u8> {
    let picture = |_| grey_jpeg(16, 16, |x, _| x as u8);
    let pictures = Pictures {
        width: 16,
        height: 16,
        fps: 10.0,
        count: 4,
        picture: &picture,
    };
    let samples = Samples {
        rate_hz: 44_100,
        channels: 2,
        samples: vec![1; 4000],
    };
    make_clip(Some(&pictures), Some(&samples))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_matroska_neither_panics_nor_turns_time_back(
        header_edits in edits(4),
        block_edits in edits(8),
        keep: Option<prop::sample::Index>,
    ) {
        let mut header = short_clip();
        let blocks = header.split_off(HEADER);
        // The header by itself as well, since damage there does the most.
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
    fn noise_behind_any_magic_does_not_panic(
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
