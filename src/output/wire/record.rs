//! The content of an estimate frame: 32 bytes of fixed layout, little-endian, documented in `cross/wire.md`.

use std::time::{Duration, Instant};

use crate::face::EXPRESSIONS;
use crate::fusion::Estimate;
use crate::output::estimate::latency_ms;

/// The length of a record.
pub const RECORD_BYTES: usize = 32;
/// The unknown value of a signed field, an unsigned field and a byte.
const UNKNOWN_I16: i16 = i16::MIN;
const UNKNOWN_U16: u16 = u16::MAX;
const UNKNOWN_U8: u8 = u8::MAX;
/// The scale of fields that hold fractions of one.
const TEN_THOUSANDTHS: f32 = 10_000.0;
/// The largest value in such a field.
const ONE: i16 = 10_000;
/// Half a millisecond, added before a time is cut to whole milliseconds.
const ROUNDING: Duration = Duration::from_micros(500);

/// An estimate at the precision of the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record {
    /// Modulo 2³².
    pub seq: u32,
    /// Milliseconds on the source's clock, modulo 2³² (49.7 days).
    pub t_ms: u32,
    /// Ten-thousandths, −10 000 to 10 000.
    pub valence: Option<i16>,
    /// Ten-thousandths, −10 000 to 10 000.
    pub arousal: Option<i16>,
    /// Ten-thousandths, 0 to 10 000.
    pub confidence: Option<i16>,
    /// Whether valence and arousal use the face.
    pub from_face: bool,
    /// Whether valence and arousal use the voice.
    pub from_voice: bool,
    pub face: Option<Face>,
    pub voice: Option<Voice>,
    /// The devices are closed on request.
    pub paused: bool,
    /// From capture to sending. Longer latencies are sent as 65 534.
    pub latency_ms: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    /// Modulo 2¹⁶.
    pub id: u16,
    pub bounds: Bounds,
    /// Percent.
    pub score: u8,
    /// The most likely expression.
    pub expression: Option<LikelyExpression>,
}

/// A box in ten-thousandths of the frame's width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    pub x: u16,
    pub y: u16,
    pub w: u16,
    pub h: u16,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LikelyExpression {
    /// Its index in [`EXPRESSIONS`].
    pub index: u8,
    /// Its probability in percent.
    pub percent: u8,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Voice {
    pub active: bool,
    /// Tenths of a dB relative to full scale.
    pub level: Option<i16>,
}

impl Bounds {
    const UNKNOWN: Bounds = Bounds {
        x: UNKNOWN_U16,
        y: UNKNOWN_U16,
        w: UNKNOWN_U16,
        h: UNKNOWN_U16,
    };

    fn is_in_range(self) -> bool {
        [self.x, self.y, self.w, self.h]
            .iter()
            .all(|side| *side <= ONE.unsigned_abs())
    }
}

impl LikelyExpression {
    const UNKNOWN: LikelyExpression = LikelyExpression {
        index: UNKNOWN_U8,
        percent: UNKNOWN_U8,
    };

    fn new(probabilities: &[f32; 8]) -> Option<LikelyExpression> {
        let (index, p) = (0..).zip(probabilities).max_by(|a, b| a.1.total_cmp(b.1))?;
        p.is_finite().then(|| LikelyExpression {
            index,
            percent: percent(*p),
        })
    }

    fn is_in_range(self) -> bool {
        usize::from(self.index) < EXPRESSIONS.len() && self.percent <= 100
    }
}

impl Record {
    pub fn new(estimate: &Estimate, now: Instant) -> Record {
        let affect = estimate.affect;
        Record {
            seq: modulo_u32(estimate.seq.into()),
            t_ms: modulo_u32(estimate.at.saturating_add(ROUNDING).as_millis()),
            valence: affect.and_then(|a| signed_fraction(a.valence)),
            arousal: affect.and_then(|a| signed_fraction(a.arousal)),
            confidence: affect.and_then(|a| signed_fraction(a.confidence)).map(|c| c.max(0)),
            from_face: estimate.from_face,
            from_voice: estimate.from_voice,
            face: estimate.face.map(|face| Face {
                id: modulo_u16(face.id),
                bounds: Bounds {
                    x: fraction(face.bounds.x),
                    y: fraction(face.bounds.y),
                    w: fraction(face.bounds.w),
                    h: fraction(face.bounds.h),
                },
                score: percent(face.score),
                expression: LikelyExpression::new(&face.appearance.expressions().0),
            }),
            voice: estimate.voice.as_ref().map(|voice| Voice {
                active: voice.active,
                level: voice.level_db.filter(|db| db.is_finite()).map(tenths),
            }),
            paused: estimate.paused,
            latency_ms: latency_ms(estimate, now)
                .map(|ms| u16::try_from(ms).unwrap_or(UNKNOWN_U16).min(UNKNOWN_U16 - 1)),
        }
    }

    pub fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let face = self.face;
        let level = self.voice.and_then(|v| v.level);
        let expression = face.and_then(|f| f.expression).unwrap_or(LikelyExpression::UNKNOWN);
        let bounds = face.map_or(Bounds::UNKNOWN, |f| f.bounds);
        let flags = [
            self.from_face,
            self.from_voice,
            face.is_some(),
            self.voice.is_some(),
            self.voice.is_some_and(|v| v.active),
            self.paused,
        ];
        let mut bytes = [0; RECORD_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.seq.to_le_bytes());
        put(&self.t_ms.to_le_bytes());
        for value in [self.valence, self.arousal, self.confidence] {
            put(&value.unwrap_or(UNKNOWN_I16).to_le_bytes());
        }
        put(&[flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag))]);
        put(&[face.map_or(UNKNOWN_U8, |f| f.score)]);
        for side in [bounds.x, bounds.y, bounds.w, bounds.h] {
            put(&side.to_le_bytes());
        }
        put(&face.map_or(UNKNOWN_U16, |f| f.id).to_le_bytes());
        put(&level.unwrap_or(UNKNOWN_I16).to_le_bytes());
        put(&[expression.index, expression.percent]);
        put(&self.latency_ms.unwrap_or(UNKNOWN_U16).to_le_bytes());
        bytes
    }

    /// `None` if a field has a value that no record has.
    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Option<Record> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let i16_at = |at: usize| Some(u16_at(at).cast_signed()).filter(|v| *v != UNKNOWN_I16);
        let flag = |bit: u8| bytes[14] & 1 << bit != 0;
        let record = Record {
            seq: u32_at(0),
            t_ms: u32_at(4),
            valence: i16_at(8),
            arousal: i16_at(10),
            confidence: i16_at(12),
            from_face: flag(0),
            from_voice: flag(1),
            face: flag(2).then(|| Face {
                score: bytes[15],
                bounds: Bounds {
                    x: u16_at(16),
                    y: u16_at(18),
                    w: u16_at(20),
                    h: u16_at(22),
                },
                id: u16_at(24),
                expression: Some(LikelyExpression {
                    index: bytes[28],
                    percent: bytes[29],
                })
                .filter(|expression| expression.index != UNKNOWN_U8),
            }),
            voice: flag(3).then(|| Voice {
                active: flag(4),
                level: i16_at(26),
            }),
            paused: flag(5),
            latency_ms: Some(u16_at(30)).filter(|v| *v != UNKNOWN_U16),
        };
        // A field that the flags declare unknown must have the unknown value. Encoding the record again checks that.
        (record.is_in_range() && record.to_bytes() == *bytes).then_some(record)
    }

    fn is_in_range(&self) -> bool {
        let within = |value: Option<i16>, low: i16| value.is_none_or(|v| (low..=ONE).contains(&v));
        within(self.valence, -ONE)
            && within(self.arousal, -ONE)
            && within(self.confidence, 0)
            && self.face.is_none_or(|face| {
                face.score <= 100
                    && face.bounds.is_in_range()
                    && face.expression.is_none_or(LikelyExpression::is_in_range)
            })
            && self.voice.is_none_or(|voice| within(voice.level, -ONE))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the field counts modulo 2³²")]
fn modulo_u32(value: u128) -> u32 {
    value as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the field counts modulo 2¹⁶")]
fn modulo_u16(value: u32) -> u16 {
    value as u16
}

/// Ten-thousandths of `value`, which is clamped to −1 … 1; `None` if it is not finite.
fn signed_fraction(value: f32) -> Option<i16> {
    value
        .is_finite()
        .then(|| nearest(value.clamp(-1.0, 1.0) * TEN_THOUSANDTHS))
}

/// Ten-thousandths of `value`, which is clamped to 0 … 1.
fn fraction(value: f32) -> u16 {
    nearest(value.clamp(0.0, 1.0) * TEN_THOUSANDTHS).unsigned_abs()
}

/// Tenths of `value`, which is clamped to −1000 … 1000.
fn tenths(value: f32) -> i16 {
    nearest((value * 10.0).clamp((-ONE).into(), ONE.into()))
}

/// `value` in percent, clamped to 0 … 100.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is in 0..=100"
)]
fn percent(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 100.0).round() as u8
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "callers clamp to ±10 000, and the cast saturates"
)]
fn nearest(value: f32) -> i16 {
    value.round() as i16
}
