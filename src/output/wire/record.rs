//! What one frame says of an estimate: 32 bytes of fixed layout, little-endian, documented in `cross/wire.md`.

use std::time::Instant;

use crate::face::EXPRESSIONS;
use crate::fusion::Estimate;
use crate::output::estimate::latency_ms;

/// Bytes of a record.
pub const RECORD: usize = 32;
/// Stands for an unknown value in a signed field, an unsigned one, and a byte.
const NO_I16: i16 = i16::MIN;
const NO_U16: u16 = u16::MAX;
const NO_U8: u8 = u8::MAX;
/// Of one, in fields that hold fractions.
const TEN_THOUSANDTHS: f32 = 10_000.0;

/// An estimate at the wire's precision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record {
    /// Modulo 2³².
    pub seq: u32,
    /// Milliseconds on the source's clock, modulo 2³²: 49.7 days.
    pub t_ms: u32,
    /// Ten thousandths, −10 000 … 10 000; arousal too.
    pub valence: Option<i16>,
    pub arousal: Option<i16>,
    /// Ten thousandths.
    pub confidence: Option<i16>,
    /// What valence and arousal rest on.
    pub from_face: bool,
    pub from_voice: bool,
    pub face: Option<Face>,
    pub voice: Option<Voice>,
    /// From capture to sending; longer ones count as 65 534.
    pub latency_ms: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    /// Modulo 2¹⁶.
    pub id: u16,
    /// x, y, width, height in ten thousandths of the picture.
    pub bounds: [u16; 4],
    /// Percent.
    pub score: u8,
    /// The likeliest of [`EXPRESSIONS`], by its place there, and its percentage.
    pub expression: Option<(u8, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Voice {
    pub active: bool,
    /// Tenths of a dB of full scale.
    pub level: Option<i16>,
}

impl Record {
    pub fn of(estimate: &Estimate, now: Instant) -> Record {
        let affect = estimate.affect;
        Record {
            seq: estimate.seq as u32,
            t_ms: (estimate.at.as_secs_f64() * 1000.0).round() as u64 as u32,
            valence: affect.and_then(|a| signed(a.valence)),
            arousal: affect.and_then(|a| signed(a.arousal)),
            confidence: affect.and_then(|a| signed(a.confidence)).map(|c| c.max(0)),
            from_face: estimate.from_face,
            from_voice: estimate.from_voice,
            face: estimate.face.map(|face| Face {
                id: face.id as u16,
                bounds: [face.bounds.x, face.bounds.y, face.bounds.w, face.bounds.h].map(fraction),
                score: percent(face.score),
                expression: likeliest(&face.expressions.0),
            }),
            voice: estimate.voice.as_ref().map(|voice| Voice {
                active: voice.active,
                level: voice.level_db.filter(|db| db.is_finite()).map(|db| {
                    let tenths = (db * 10.0).round();
                    tenths.clamp(-10_000.0, 10_000.0) as i16
                }),
            }),
            latency_ms: latency_ms(estimate, now).map(|ms| ms.min(u64::from(NO_U16 - 1)) as u16),
        }
    }

    pub fn to_bytes(self) -> [u8; RECORD] {
        let face = self.face;
        let level = self.voice.and_then(|v| v.level);
        let (expression, likelihood) = face.and_then(|f| f.expression).unwrap_or((NO_U8, NO_U8));
        let flags = [
            self.from_face,
            self.from_voice,
            face.is_some(),
            self.voice.is_some(),
            self.voice.is_some_and(|v| v.active),
        ];
        let mut bytes = [0; RECORD];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.seq.to_le_bytes());
        put(&self.t_ms.to_le_bytes());
        for value in [self.valence, self.arousal, self.confidence] {
            put(&value.unwrap_or(NO_I16).to_le_bytes());
        }
        put(&[flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag))]);
        put(&[face.map_or(NO_U8, |f| f.score)]);
        for side in face.map_or([NO_U16; 4], |f| f.bounds) {
            put(&side.to_le_bytes());
        }
        put(&face.map_or(NO_U16, |f| f.id).to_le_bytes());
        put(&level.unwrap_or(NO_I16).to_le_bytes());
        put(&[expression, likelihood]);
        put(&self.latency_ms.unwrap_or(NO_U16).to_le_bytes());
        bytes
    }

    /// `None` if a field holds what no record does.
    pub fn from_bytes(bytes: &[u8; RECORD]) -> Option<Record> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let i16_at = |at: usize| Some(u16_at(at) as i16).filter(|v| *v != NO_I16);
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
                bounds: [16, 18, 20, 22].map(u16_at),
                id: u16_at(24),
                expression: Some((bytes[28], bytes[29])).filter(|(which, _)| *which != NO_U8),
            }),
            voice: flag(3).then(|| Voice {
                active: flag(4),
                level: i16_at(26),
            }),
            latency_ms: Some(u16_at(30)).filter(|v| *v != NO_U16),
        };
        // What was read must be the whole of what stands there.
        (record.is_in_range() && record.to_bytes() == *bytes).then_some(record)
    }

    fn is_in_range(&self) -> bool {
        let within = |value: Option<i16>, low: i16| value.is_none_or(|v| (low..=10_000).contains(&v));
        within(self.valence, -10_000)
            && within(self.arousal, -10_000)
            && within(self.confidence, 0)
            && self.face.is_none_or(|face| {
                face.score <= 100
                    && face.bounds.iter().all(|side| *side <= 10_000)
                    && face
                        .expression
                        .is_none_or(|(which, p)| usize::from(which) < EXPRESSIONS.len() && p <= 100)
            })
            && self.voice.is_none_or(|voice| within(voice.level, -10_000))
    }
}

fn signed(value: f32) -> Option<i16> {
    value
        .is_finite()
        .then(|| (value.clamp(-1.0, 1.0) * TEN_THOUSANDTHS).round() as i16)
}

fn fraction(value: f32) -> u16 {
    (value.clamp(0.0, 1.0) * TEN_THOUSANDTHS).round() as u16
}

fn percent(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 100.0).round() as u8
}

fn likeliest(probabilities: &[f32; 8]) -> Option<(u8, u8)> {
    let (which, p) = probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
    p.is_finite().then(|| (which as u8, percent(*p)))
}
