//! The estimate as a row of comma-separated values: numbers only, empty where unknown, the same columns in every row.
//! `cross/messages.md` documents the columns.

use std::io::Write;
use std::ops::RangeInclusive;
use std::time::{Instant, SystemTime};

use super::estimate::{ANY_LEVEL_DB, latency_ms, rounded, seconds, time_of_day};
use crate::face::EXPRESSIONS;
use crate::fusion::Estimate;

/// The columns. `from_face` and `from_voice` are 1 if the estimate uses that modality, else 0, and `paused` is 1 during a pause. The columns
/// `expression_*` are probabilities, in the order of [`EXPRESSIONS`].
pub const HEADER: &str = "seq,t,time,paused,valence,arousal,confidence,from_face,from_voice,\
face_id,face_x,face_y,face_w,face_h,face_score,voice_active,voice_level_db,\
expression_neutral,expression_happiness,expression_surprise,expression_sadness,expression_anger,expression_disgust,\
expression_fear,expression_contempt,latency_ms";

/// Appends `estimate` without a line end. `now` gives the latency, `wall` the time of day if it is known.
pub fn write_row(estimate: &Estimate, line: &mut Vec<u8>, now: Instant, wall: Option<SystemTime>) {
    const FRACTION: RangeInclusive<f32> = 0.0..=1.0;
    const SIGNED: RangeInclusive<f32> = -1.0..=1.0;
    let mut row = Row { line, first: true };
    let (affect, face, voice) = (&estimate.affect, &estimate.face, &estimate.voice);
    row.cell(Some(estimate.seq));
    row.cell(Some(seconds(estimate.at)));
    row.cell(wall.map(time_of_day));
    row.cell(Some(u8::from(estimate.paused)));
    row.number(affect.map(|a| a.valence), SIGNED, 3);
    row.number(affect.map(|a| a.arousal), SIGNED, 3);
    row.number(affect.map(|a| a.confidence), FRACTION, 3);
    row.cell(Some(u8::from(estimate.from_face)));
    row.cell(Some(u8::from(estimate.from_voice)));
    row.cell(face.map(|f| f.id));
    row.number(face.map(|f| f.bounds.x), FRACTION, 3);
    row.number(face.map(|f| f.bounds.y), FRACTION, 3);
    row.number(face.map(|f| f.bounds.w), FRACTION, 3);
    row.number(face.map(|f| f.bounds.h), FRACTION, 3);
    row.number(face.map(|f| f.score), FRACTION, 2);
    row.cell(voice.as_ref().map(|v| u8::from(v.active)));
    row.number(voice.as_ref().and_then(|v| v.level_db), ANY_LEVEL_DB, 1);
    for k in 0..EXPRESSIONS.len() {
        row.number(face.map(|f| f.appearance.expressions().0[k]), FRACTION, 2);
    }
    row.cell(latency_ms(estimate, now));
}

struct Row<'a> {
    line: &'a mut Vec<u8>,
    first: bool,
}

impl Row<'_> {
    fn cell(&mut self, value: Option<impl std::fmt::Display>) {
        if !std::mem::take(&mut self.first) {
            self.line.push(b',');
        }
        if let Some(value) = value {
            write!(self.line, "{value}").expect("a vector takes every write");
        }
    }

    fn number(&mut self, value: Option<f32>, range: RangeInclusive<f32>, digits: i32) {
        self.cell(value.and_then(|v| rounded(v, range, digits)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::estimate::samples::{everything, nothing};
    use super::*;
    use std::time::Duration;

    fn row(estimate: &Estimate, now: Instant, wall: Option<SystemTime>) -> String {
        let mut line = Vec::new();
        write_row(estimate, &mut line, now, wall);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_full_row_has_a_value_in_every_cell() {
        let captured = Instant::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_510_800_123);
        let row = row(
            &everything(captured, 0.42),
            captured + Duration::from_millis(41),
            Some(wall),
        );
        insta::assert_snapshot!(format!("{HEADER}\n{row}"), @"
        seq,t,time,paused,valence,arousal,confidence,from_face,from_voice,face_id,face_x,face_y,face_w,face_h,face_score,voice_active,voice_level_db,expression_neutral,expression_happiness,expression_surprise,expression_sadness,expression_anger,expression_disgust,expression_fear,expression_contempt,latency_ms
        1042,208.4,2026-11-24T09:00:00.123Z,0,0.42,0.18,0.81,1,1,3,0.31,0.22,0.18,0.24,0.97,1,-23.1,0.11,0.83,0.04,0.02,0,0,0,0,41
        ");
    }

    #[test]
    fn a_row_from_nothing_has_every_cell() {
        let row = row(&nothing(1), Instant::now(), None);
        insta::assert_snapshot!(row, @"1,0.2,,0,,,,0,0,,,,,,,,,,,,,,,,,");
        assert_eq!(row.matches(',').count(), HEADER.matches(',').count());
    }

    #[test]
    fn expression_columns_are_in_the_order_of_the_expressions() {
        let columns: Vec<&str> = HEADER
            .split(',')
            .filter_map(|c| c.strip_prefix("expression_"))
            .collect();
        assert_eq!(columns, EXPRESSIONS);
    }

    #[test]
    fn a_number_that_is_not_finite_leaves_its_cell_empty() {
        let captured = Instant::now();
        assert!(row(&everything(captured, f32::NAN), captured, None).starts_with("1042,208.4,,0,,0.18,"));
    }
}
