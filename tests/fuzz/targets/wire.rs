//! Frames of `wire=frame`: the readers in Rust and in C read the same messages, and what is read encodes to the same message again.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use affectd::output::wire::record::{Bounds, Face, LikelyExpression, RECORD_BYTES, Voice};
use affectd::output::wire::{FrameReader, InvalidFrame, Message, Record};

/// `affectd_wire_estimate` of `cross/readers/affectd_wire.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CEstimate {
    seq: u32,
    t_ms: u32,
    valence: i16,
    arousal: i16,
    confidence: i16,
    from_face: bool,
    from_voice: bool,
    face: bool,
    voice: bool,
    voice_active: bool,
    paused: bool,
    voice_level: i16,
    face_id: u16,
    face_x: u16,
    face_y: u16,
    face_w: u16,
    face_h: u16,
    face_score: u8,
    expression: u8,
    expression_percent: u8,
    latency_ms: u16,
}

/// Takes a result of the C reader: the estimate or the text is there if the result is one.
pub type OnResult =
    extern "C" fn(to: *mut c_void, result: c_int, estimate: *const CEstimate, text: *const u8, length: usize);

/// `READ` of `tests/fuzz/wire.c`.
pub type CReader = unsafe extern "C" fn(bytes: *const u8, length: usize, pass_on: OnResult, to: *mut c_void);

/// The C reader with the buffer for answers, and with the small one for microcontrollers.
#[derive(Debug, Clone, Copy)]
pub struct CReaders {
    pub large: CReader,
    pub small: CReader,
}

/// The size of the small buffer in bytes. The large one has 1024.
pub const SMALL: usize = 40;

/// The caller of the target sets them after it has linked or loaded them.
pub static C_READERS: OnceLock<CReaders> = OnceLock::new();

/// A result of either reader.
#[derive(Debug, Clone, PartialEq)]
enum Read {
    Estimate(Record),
    Text(Vec<u8>),
    TooLong,
    Invalid,
}

pub fn check(data: &[u8]) {
    let c = C_READERS.get().expect("the C readers are set before the first input");
    let rust: Vec<Result<Message, InvalidFrame>> = by_rust(data);
    let large = by_c(c.large, data);
    let mut as_in_rust: Vec<_> = large.iter().map(as_rust).collect();
    // A text that is not UTF-8 is invalid in Rust, and what is invalid before the first delimiter is not reported.
    let before_first = data
        .iter()
        .position(|byte| *byte == 0)
        .map_or(&[][..], |end| &data[..=end]);
    if let [Read::Text(text)] = &by_c(c.large, before_first)[..]
        && str::from_utf8(text).is_err()
    {
        let _invalid = as_in_rust.remove(0);
    }
    assert_eq!(as_in_rust, rust);
    // The small buffer reads the same, except for frames that do not fit. A frame before the first delimiter is not reported
    // if it is too long.
    let mut fits = frames(data).map(|frame| frame.len() <= SMALL);
    let small = by_c(c.small, data);
    if fits.all(|fits| fits) {
        assert_eq!(small, large);
    } else {
        let mut all = large.iter();
        for read in small.iter().filter(|read| **read != Read::TooLong) {
            assert!(all.any(|other| other == read), "{read:?} is not among {large:?}");
        }
    }
    for message in rust.into_iter().flatten() {
        assert_round_trip(message);
    }
    if let Some((record, text)) = data.split_first_chunk::<RECORD_BYTES>() {
        if let Some(valid) = Record::from_bytes(record) {
            assert_eq!(valid.to_bytes(), *record);
            assert_round_trip(Message::Estimate(valid));
        }
        // With its delimiters and the overhead of COBS, a longer text does not fit.
        if let Ok(text) = str::from_utf8(text)
            && text.len() <= 1000
        {
            assert_round_trip(Message::Text(text.to_owned()));
        }
    }
}

fn frames(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == 0)
}

fn assert_round_trip(message: Message) {
    let mut frame = vec![0];
    message.encode(&mut frame);
    assert_eq!(by_rust(&frame), [Ok(message)]);
}

fn by_rust(data: &[u8]) -> Vec<Result<Message, InvalidFrame>> {
    let mut reader = FrameReader::default();
    data.iter().filter_map(|byte| reader.push(*byte)).collect()
}

fn by_c(reader: CReader, data: &[u8]) -> Vec<Read> {
    let mut read: Vec<Read> = Vec::new();
    // SAFETY: `data` is readable, and `add` gets the vector, which outlives the call.
    unsafe { reader(data.as_ptr(), data.len(), add, (&raw mut read).cast()) };
    read
}

extern "C" fn add(to: *mut c_void, result: c_int, estimate: *const CEstimate, text: *const u8, length: usize) {
    // SAFETY: `by_c` passes its vector, and nothing else refers to it during the call.
    let read = unsafe { &mut *to.cast::<Vec<Read>>() };
    read.push(match result {
        // SAFETY: the result is an estimate, so the reader passes one.
        1 => Read::Estimate(record(unsafe { *estimate })),
        // SAFETY: the result is a text, so the reader passes its place in the buffer and its length.
        2 => Read::Text(unsafe { std::slice::from_raw_parts(text, length) }.to_vec()),
        3 => Read::TooLong,
        _ => Read::Invalid,
    });
}

/// What the Rust reader makes of the same frame. Only it checks that a text is UTF-8, and its buffer is the large one.
fn as_rust(read: &Read) -> Result<Message, InvalidFrame> {
    match read {
        Read::Estimate(record) => Ok(Message::Estimate(*record)),
        Read::Text(text) => String::from_utf8(text.clone())
            .map(Message::Text)
            .map_err(|_| InvalidFrame),
        Read::TooLong | Read::Invalid => Err(InvalidFrame),
    }
}

fn record(c: CEstimate) -> Record {
    let known = |value: i16| (value != i16::MIN).then_some(value);
    Record {
        seq: c.seq,
        t_ms: c.t_ms,
        valence: known(c.valence),
        arousal: known(c.arousal),
        confidence: known(c.confidence),
        from_face: c.from_face,
        from_voice: c.from_voice,
        face: c.face.then_some(Face {
            id: c.face_id,
            bounds: Bounds {
                x: c.face_x,
                y: c.face_y,
                w: c.face_w,
                h: c.face_h,
            },
            score: c.face_score,
            expression: (c.expression != u8::MAX).then_some(LikelyExpression {
                index: c.expression,
                percent: c.expression_percent,
            }),
        }),
        voice: c.voice.then_some(Voice {
            active: c.voice_active,
            level: known(c.voice_level),
        }),
        paused: c.paused,
        latency_ms: (c.latency_ms != u16::MAX).then_some(c.latency_ms),
    }
}
