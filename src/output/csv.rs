//! The estimate as a row of comma-separated values: numbers only, empty where unknown, the same columns in every row.

use std::io::Write;
use std::time::{Instant, SystemTime};

use super::estimate::{latency_ms, rounded, seconds, time_of_day};
use crate::fusion::Estimate;

/// The columns. `face` and `voice` say whether the estimate rests on them, 1 or 0; from `neutral` on come the
/// probabilities of what the face shows.
pub const HEADER: &str = "seq,t,time,valence,arousal,confidence,face,voice,face_id,face_x,face_y,face_w,face_h,face_score,\
voice_active,voice_level_db,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,latency_ms";

/// Appends `estimate` without a line end; `now` gives the latency, `wall` the time of day if it is known.
pub fn write_row(estimate: &Estimate, line: &mut Vec<u8>, now: Instant, wall: Option<SystemTime>) {
    let mut row = Row { line, first: true };
    let (affect, face, voice) = (&estimate.affect, &estimate.face, &estimate.voice);
    row.cell(Some(estimate.seq));
    row.cell(Some(seconds(estimate.at)));
    row.cell(wall.map(time_of_day));
    row.number(affect.map(|a| a.valence), 3);
    row.number(affect.map(|a| a.arousal), 3);
    row.number(affect.map(|a| a.confidence), 3);
    row.cell(Some(u8::from(estimate.from_face)));
    row.cell(Some(u8::from(estimate.from_voice)));
    row.cell(face.map(|f| f.id));
    let bounds = face.map(|f| [f.bounds.x, f.bounds.y, f.bounds.w, f.bounds.h]);
    for side in 0..4 {
        row.number(bounds.map(|b| b[side]), 3);
    }
    row.number(face.map(|f| f.score), 2);
    row.cell(voice.as_ref().map(|v| u8::from(v.active)));
    row.number(voice.as_ref().and_then(|v| v.level_db), 1);
    for k in 0..crate::face::EXPRESSIONS.len() {
        row.number(face.map(|f| f.expressions.0[k]), 2);
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
            write!(self.line, "{value}").expect("memory takes what is written");
        }
    }

    fn number(&mut self, value: Option<f32>, digits: i32) {
        self.cell(value.map(|v| rounded(v, digits)).filter(|v| v.is_finite()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::estimate::samples::{everything, nothing};
    use super::*;
    use crate::face::EXPRESSIONS;
    use std::time::Duration;

    fn row(estimate: &Estimate, now: Instant, wall: Option<SystemTime>) -> String {
        let mut line = Vec::new();
        write_row(estimate, &mut line, now, wall);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_full_row() {
        let captured = Instant::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_510_800_123);
        let row = row(
            &everything(captured, 0.42),
            captured + Duration::from_millis(41),
            Some(wall),
        );
        insta::assert_snapshot!(format!("{HEADER}\n{row}"), @"
        seq,t,time,valence,arousal,confidence,face,voice,face_id,face_x,face_y,face_w,face_h,face_score,voice_active,voice_level_db,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,latency_ms
        1042,208.4,2026-11-24T09:00:00.123Z,0.42,0.18,0.81,1,1,3,0.31,0.22,0.18,0.24,0.97,1,-23.1,0.11,0.83,0.04,0,0,0,0,0,41
        ");
    }

    #[test]
    fn a_row_about_nothing_has_every_cell() {
        let row = row(&nothing(1), Instant::now(), None);
        insta::assert_snapshot!(row, @"1,0.2,,,,,0,0,,,,,,,,,,,,,,,,,");
        assert_eq!(row.matches(',').count(), HEADER.matches(',').count());
    }

    #[test]
    fn the_expressions_stand_under_their_names() {
        let columns: Vec<&str> = HEADER.split(',').skip(16).take(8).collect();
        assert_eq!(columns, EXPRESSIONS);
    }

    #[test]
    fn a_number_that_is_none_leaves_its_cell_empty() {
        let captured = Instant::now();
        assert!(row(&everything(captured, f32::NAN), captured, None).starts_with("1042,208.4,,,0.18,"));
    }
}
