use super::record::{Face, Voice};
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

/// What a reader makes of a stream: the messages, and how many broken frames.
fn read(stream: &[u8]) -> (Vec<Message>, usize) {
    let mut reader = Reader::default();
    let read: Vec<_> = stream.iter().filter_map(|b| reader.push(*b)).collect();
    let broken = read.iter().filter(|r| r.is_err()).count();
    (read.into_iter().flatten().collect(), broken)
}

fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    pairs.join(" ")
}

fn full() -> Record {
    let captured = Instant::now();
    Record::of(&everything(captured, 0.42), captured + Duration::from_millis(41))
}

/// The test vectors of `cross/wire.md`: change them only together with the version.
#[test]
fn the_bytes_are_those_of_the_documentation() {
    insta::assert_snapshot!(hex(&frame(&Message::Estimate(full()))), @"05 01 01 12 04 01 04 10 2e 03 12 68 10 0c 07 a4 1f 1f 61 1c 0c 98 08 08 07 60 09 03 06 19 ff 01 53 29 03 06 64 00");
    insta::assert_snapshot!(hex(&frame(&Message::Estimate(Record::of(&nothing(1), Instant::now())))), @"04 01 01 01 01 01 02 c8 01 01 01 02 80 02 80 02 80 0c ff ff ff ff ff ff ff ff ff ff ff 08 80 ff ff ff ff 58 5d 00");
    insta::assert_snapshot!(hex(&frame(&Message::Text(r#"{"ok":"pong"}"#.into()))), @"12 01 02 7b 22 6f 6b 22 3a 22 70 6f 6e 67 22 7d 11 a5 00");
}

#[test]
fn a_record_holds_what_the_line_says() {
    let record = full();
    assert_eq!((record.seq, record.t_ms), (1042, 208_400));
    assert_eq!(
        (record.valence, record.arousal, record.confidence),
        (Some(4200), Some(1804), Some(8100))
    );
    assert!(record.from_face && record.from_voice);
    let face = record.face.unwrap();
    assert_eq!((face.id, face.bounds, face.score), (3, [3100, 2200, 1800, 2400], 97));
    assert_eq!(face.expression, Some((1, 83)));
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
fn a_number_that_is_none_is_unknown() {
    let captured = Instant::now();
    let record = Record::of(&everything(captured, f32::NAN), captured);
    assert_eq!(record.valence, None);
    assert_eq!(record.arousal, Some(1804));
}

#[test]
fn one_or_two_flipped_bits_never_make_another_record() {
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
            let (read, broken) = read(&noisy);
            assert!(read.iter().all(|m| *m == sent), "bits {first} and {second}");
            assert!(read.len() <= 2 && broken >= 1, "bits {first} and {second}");
            // What was not touched is read: the first frame unless its end was, the last always.
            assert!(!read.is_empty());
        }
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let ten_thousandths = |low: i16| prop::option::of(low..=10_000i16);
    let face = (
        any::<u16>(),
        prop::array::uniform4(0..=10_000u16),
        0..=100u8,
        prop::option::of((0..8u8, 0..=100u8)),
    )
        .prop_map(|(id, bounds, score, expression)| Face {
            id,
            bounds,
            score,
            expression,
        });
    let voice = (any::<bool>(), ten_thousandths(-10_000)).prop_map(|(active, level)| Voice { active, level });
    let times = (any::<u32>(), any::<u32>(), prop::option::of(0..u16::MAX));
    let affect = (ten_thousandths(-10_000), ten_thousandths(-10_000), ten_thousandths(0));
    let flags = (any::<bool>(), any::<bool>());
    (times, affect, flags, prop::option::of(face), prop::option::of(voice)).prop_map(
        |((seq, t_ms, latency_ms), (valence, arousal, confidence), (from_face, from_voice), face, voice)| Record {
            seq,
            t_ms,
            valence,
            arousal,
            confidence,
            from_face,
            from_voice,
            face,
            voice,
            latency_ms,
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
    fn what_is_sent_is_read(messages in prop::collection::vec(any_message(), 0..20)) {
        let stream: Vec<u8> = messages.iter().flat_map(frame).collect();
        prop_assert_eq!(read(&stream), (messages, 0));
    }

    #[test]
    fn a_reader_that_comes_late_misses_one_frame_and_blames_nobody(
        messages in prop::collection::vec(any_message(), 2..8),
        late in 0.0..1.0f64,
    ) {
        let first = frame(&messages[0]);
        let missed = (first.len() as f64 * late) as usize + 1;
        let rest: Vec<u8> = messages[1..].iter().flat_map(frame).collect();
        let stream = [&first[missed.min(first.len())..], &rest].concat();
        prop_assert_eq!(read(&stream), (messages[1..].to_vec(), 0));
    }

    #[test]
    fn a_record_fits_its_frame(record in any_record()) {
        prop_assert_eq!(frame(&Message::Estimate(record)).len(), 38);
    }
}

/// With a fixed seed, since of frames torn at random one in some 65 536 has the right checksum by chance.
#[test]
fn whatever_happens_to_a_stream_untouched_frames_are_read_and_no_others() {
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
        let rubbish = (0..length).map(|k| noise.rotate_left(k as u32 * 7).wrapping_mul(31) as u8);
        match kind {
            0 => stream.splice(from..until, rubbish).count(), // Overwritten.
            1 => stream.drain(from..until).count(),           // Lost.
            _ => stream.splice(from..from, rubbish).count(),  // Inserted.
        };
        let (read, _) = read(&stream);
        let records: Vec<Message> = records.into_iter().map(Message::Estimate).collect();
        // Before the damage and from the second frame after it on, everything is there; in between, nothing made up.
        let whole_before = from / 38;
        let whole_after = until.div_ceil(38) + 1;
        prop_assert!(read.iter().all(|m| records.contains(m)), "a record that was never sent");
        prop_assert!(read.starts_with(&records[..whole_before]));
        prop_assert!(read.ends_with(&records[whole_after.min(records.len())..]));
        Ok(())
    });
    result.unwrap();
}
