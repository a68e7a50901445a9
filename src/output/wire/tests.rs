use super::record::{Bounds, Face, LikelyExpression, Voice};
use super::*;
use crate::output::estimate::samples::{everything, nothing};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRunner};
use std::time::{Duration, Instant};

fn frame(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

/// Reads a stream; returns the messages and the number of invalid frames.
fn read(stream: &[u8]) -> (Vec<Message>, usize) {
    let mut reader = FrameReader::default();
    let read: Vec<_> = stream.iter().filter_map(|b| reader.push(*b)).collect();
    let invalid = read.iter().filter(|r| r.is_err()).count();
    (read.into_iter().flatten().collect(), invalid)
}

fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    pairs.join(" ")
}

fn full() -> Record {
    let captured = Instant::now();
    Record::new(&everything(captured, 0.42), captured + Duration::from_millis(41))
}

/// The examples in `cross/wire.md`. They change only together with the version.
#[test]
fn frames_match_the_documented_bytes() {
    insta::assert_snapshot!(hex(&frame(&Message::Estimate(full()))), @"05 01 01 12 04 01 04 10 2e 03 12 68 10 0c 07 a4 1f 1f 61 1c 0c 98 08 08 07 60 09 03 06 19 ff 01 53 29 03 06 64 00");
    insta::assert_snapshot!(hex(&frame(&Message::Estimate(Record::new(&nothing(1), Instant::now())))), @"04 01 01 01 01 01 02 c8 01 01 01 02 80 02 80 02 80 0c ff ff ff ff ff ff ff ff ff ff ff 08 80 ff ff ff ff 58 5d 00");
    insta::assert_snapshot!(hex(&frame(&Message::Text(r#"{"ok":"pong"}"#.into()))), @"12 01 02 7b 22 6f 6b 22 3a 22 70 6f 6e 67 22 7d 11 a5 00");
}

#[test]
fn the_numbers_of_a_record_wrap_as_documented() {
    let year = Duration::from_secs(365 * 24 * 3600);
    let mut estimate = everything(Instant::now(), 0.42);
    estimate.seq = (1 << 32) + 5;
    estimate.at = year;
    estimate.face.as_mut().unwrap().id = (1 << 16) + 7;
    let record = Record::new(&estimate, Instant::now());
    let expected_ms = u32::try_from(year.as_millis() % (1 << 32)).unwrap();
    assert_eq!((record.seq, record.t_ms, record.face.unwrap().id), (5, expected_ms, 7));
    // The number of a face may be the one that stands for no face.
    estimate.face.as_mut().unwrap().id = u32::from(u16::MAX);
    let record = Record::new(&estimate, Instant::now());
    assert_eq!(Record::from_bytes(&record.to_bytes()), Some(record));
}

#[test]
fn a_record_has_the_values_of_the_estimate() {
    let record = full();
    assert_eq!((record.seq, record.t_ms), (1042, 208_400));
    assert_eq!(
        (record.valence, record.arousal, record.confidence),
        (Some(4200), Some(1804), Some(8100))
    );
    assert!(record.from_face && record.from_voice);
    let face = record.face.unwrap();
    let bounds = Bounds {
        x: 3100,
        y: 2200,
        w: 1800,
        h: 2400,
    };
    assert_eq!((face.id, face.bounds, face.score), (3, bounds, 97));
    let happiness = LikelyExpression { index: 1, percent: 83 };
    assert_eq!(face.expression, Some(happiness));
    assert_eq!(
        record.voice,
        Some(Voice {
            active: true,
            level: Some(-231)
        })
    );
    assert_eq!(record.latency_ms, Some(41));
}

#[test]
fn a_number_that_is_not_finite_is_unknown() {
    let captured = Instant::now();
    let record = Record::new(&everything(captured, f32::NAN), captured);
    assert_eq!(record.valence, None);
    assert_eq!(record.arousal, Some(1804));
}

#[test]
fn one_or_two_flipped_bits_never_yield_another_record() {
    let sent = Message::Estimate(full());
    let stream = [frame(&sent), frame(&sent), frame(&sent)].concat();
    let (middle, length) = (stream.len() / 3, stream.len() / 3);
    let flip = |stream: &mut [u8], bit: usize| stream[middle + bit / 8] ^= 1 << (bit % 8);
    for first in 0..length * 8 {
        for second in first..length * 8 {
            let mut noisy = stream.clone();
            flip(&mut noisy, first);
            if second != first {
                flip(&mut noisy, second);
            }
            let (read, invalid) = read(&noisy);
            assert!(read.iter().all(|m| *m == sent), "bits {first} and {second}");
            assert!(read.len() <= 2 && invalid >= 1, "bits {first} and {second}");
            // Undamaged frames are read: the first unless its end was damaged, and the last.
            assert!(!read.is_empty());
        }
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let ten_thousandths = |low: i16| prop::option::of(low..=10_000i16);
    let bounds = prop::array::uniform4(0..=10_000u16).prop_map(|[x, y, w, h]| Bounds { x, y, w, h });
    let expression = (0..8u8, 0..=100u8).prop_map(|(index, percent)| LikelyExpression { index, percent });
    let face =
        (any::<u16>(), bounds, 0..=100u8, prop::option::of(expression)).prop_map(|(id, bounds, score, expression)| {
            Face {
                id,
                bounds,
                score,
                expression,
            }
        });
    let voice = (any::<bool>(), ten_thousandths(-10_000)).prop_map(|(active, level)| Voice { active, level });
    let times = (any::<u32>(), any::<u32>(), prop::option::of(0..u16::MAX));
    let affect = (ten_thousandths(-10_000), ten_thousandths(-10_000), ten_thousandths(0));
    let flags = any::<(bool, bool, bool)>();
    (times, affect, flags, prop::option::of(face), prop::option::of(voice)).prop_map(
        |((seq, t_ms, latency_ms), (valence, arousal, confidence), (from_face, from_voice, paused), face, voice)| {
            Record {
                seq,
                t_ms,
                valence,
                arousal,
                confidence,
                from_face,
                from_voice,
                face,
                voice,
                paused,
                latency_ms,
            }
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        4 => any_record().prop_map(Message::Estimate),
        1 => "[ -~]{0,600}".prop_map(Message::Text),
    ]
}

proptest! {
    #[test]
    fn every_frame_sent_is_read(messages in prop::collection::vec(any_message(), 0..20)) {
        let stream: Vec<u8> = messages.iter().flat_map(frame).collect();
        prop_assert_eq!(read(&stream), (messages, 0));
    }

    #[test]
    fn a_reader_that_starts_inside_a_frame_misses_it_without_an_error(
        messages in prop::collection::vec(any_message(), 2..8),
        missed in any::<prop::sample::Index>(),
    ) {
        let first = frame(&messages[0]);
        let rest: Vec<u8> = messages[1..].iter().flat_map(frame).collect();
        let stream = [&first[missed.index(first.len()) + 1..], &rest].concat();
        prop_assert_eq!(read(&stream), (messages[1..].to_vec(), 0));
    }

    #[test]
    fn every_estimate_frame_has_38_bytes(record in any_record()) {
        prop_assert_eq!(frame(&Message::Estimate(record)).len(), 38);
    }
}

/// The seed is fixed, because about one in 65 536 randomly damaged frames has a correct checksum by chance.
#[test]
fn of_a_damaged_stream_the_undamaged_frames_are_read_and_no_others() {
    let mut runner = TestRunner::new(Config {
        cases: 2000,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(6),
        ..Config::default()
    });
    let damage = (0..3u8, any::<prop::sample::Index>(), 1..60usize, any::<u64>());
    let case = (prop::collection::vec(any_record(), 3..8), damage);
    let result = runner.run(&case, |(records, (kind, place, length, noise))| {
        let frames: Vec<Vec<u8>> = records.iter().map(|r| frame(&Message::Estimate(*r))).collect();
        let mut stream = frames.concat();
        let from = place.index(stream.len());
        let until = (from + length).min(stream.len());
        let garbage = (0..length).map(|k| {
            noise
                .rotate_left(u32::try_from(k).unwrap() * 7)
                .wrapping_mul(31)
                .to_le_bytes()[0]
        });
        match kind {
            0 => stream.splice(from..until, garbage).count(), // Overwritten.
            1 => stream.drain(from..until).count(),           // Lost.
            _ => stream.splice(from..from, garbage).count(),  // Inserted.
        };
        let (read, _) = read(&stream);
        let records: Vec<Message> = records.into_iter().map(Message::Estimate).collect();
        // All frames before the damage are read, and all frames from the second one after it. No other frames are reported.
        let whole_before = from / 38;
        let whole_after = until.div_ceil(38) + 1;
        prop_assert!(read.iter().all(|m| records.contains(m)), "a record that was not sent");
        prop_assert!(read.starts_with(&records[..whole_before]));
        prop_assert!(read.ends_with(&records[whole_after.min(records.len())..]));
        Ok(())
    });
    result.unwrap();
}
