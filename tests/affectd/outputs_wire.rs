//! Compares the readers in `cross/readers` with the Rust reader, on undamaged and on damaged streams.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use affectd::output::wire::record::{Bounds, Face, LikelyExpression, Voice};
use affectd::output::wire::{FrameReader, Message, Record};
use serde_json::{Value, json};

fn readers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/readers")
}

/// Reproducible pseudo-random numbers (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to `end` − 1.
    fn below<T: TryFrom<u64> + Into<u64> + Copy>(&mut self, end: T) -> T {
        let value = (self.next() >> 16) % end.into();
        T::try_from(value).ok().expect("less than `end`")
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    fn boolean(&mut self) -> bool {
        self.below(2u8) == 0
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Noise) -> T) -> Option<T> {
        (self.below(4u8) > 0).then(|| value(self))
    }

    fn signed(&mut self) -> i16 {
        i16::try_from(self.below(20_001u16)).unwrap() - 10_000
    }

    fn message(&mut self) -> Message {
        if self.below(10u8) == 0 {
            let length = self.below(400u16);
            let letters: String = (0..length).map(|_| char::from(b'a' + self.below(26u8))).collect();
            return Message::Text(json!({ "ok": letters }).to_string());
        }
        Message::Estimate(Record {
            seq: self.below(u32::MAX),
            t_ms: self.below(u32::MAX),
            valence: self.maybe(Noise::signed),
            arousal: self.maybe(Noise::signed),
            confidence: self.maybe(|n| n.signed().abs()),
            from_face: self.boolean(),
            from_voice: self.boolean(),
            face: self.maybe(|n| Face {
                id: n.below(u16::MAX),
                bounds: Bounds {
                    x: n.below(10_001),
                    y: n.below(10_001),
                    w: n.below(10_001),
                    h: n.below(10_001),
                },
                score: n.below(101),
                expression: n.maybe(|n| LikelyExpression {
                    index: n.below(8),
                    percent: n.below(101),
                }),
            }),
            voice: self.maybe(|n| Voice {
                active: n.boolean(),
                level: n.maybe(Noise::signed),
            }),
            paused: self.boolean(),
            latency_ms: self.maybe(|n| n.below(65_535)),
        })
    }

    /// Damages `bytes`: overwrites, removes or doubles some of them, or flips a bit.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let from = self.index(bytes.len());
        let until = (from + 1 + self.index(40)).min(bytes.len());
        match self.below(4u8) {
            0 => bytes[from..until].fill_with(|| self.next().to_le_bytes()[0]),
            1 => drop(bytes.drain(from..until)),
            2 => bytes.extend_from_within(from..until),
            _ => bytes[from] ^= 1 << self.below(8u8),
        }
    }
}

fn frame(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

/// What a reader read from a stream.
#[derive(PartialEq)]
struct Read {
    messages: Vec<Value>,
    invalid: usize,
}

impl Read {
    fn by_rust(stream: &[u8]) -> Read {
        let mut reader = FrameReader::default();
        let read: Vec<_> = stream.iter().filter_map(|b| reader.push(*b)).collect();
        Read {
            invalid: read.iter().filter(|r| r.is_err()).count(),
            messages: read.into_iter().flatten().map(as_json).collect(),
        }
    }

    fn by(command: &mut Command, stream: &[u8]) -> Read {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stream");
        fs::write(&path, stream).unwrap();
        let input = fs::File::open(path).unwrap();
        let output = command.stdin(Stdio::from(input)).output().unwrap();
        let (text, errors) = texts(&output);
        assert!(output.status.success(), "{errors}");
        Read {
            messages: text
                .lines()
                .map(|l| rounded(serde_json::from_str(l).unwrap()))
                .collect(),
            invalid: errors.trim().strip_suffix(" invalid frames").unwrap().parse().unwrap(),
        }
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// A message as both readers print it.
fn as_json(message: Message) -> Value {
    const NAMES: [&str; 8] = affectd::face::EXPRESSIONS;
    let record = match message {
        Message::Text(text) => return serde_json::from_str(&text).unwrap(),
        Message::Estimate(record) => record,
    };
    let scaled = |value: Option<i16>, scale: f64| value.map(|v| f64::from(v) / scale);
    let modalities = [(record.from_face, "face"), (record.from_voice, "voice")];
    rounded(json!({
        "seq": record.seq,
        "t": f64::from(record.t_ms) / 1000.0,
        "paused": record.paused,
        "valence": scaled(record.valence, 10_000.0),
        "arousal": scaled(record.arousal, 10_000.0),
        "confidence": scaled(record.confidence, 10_000.0),
        "modalities": modalities.iter().filter(|m| m.0).map(|m| m.1).collect::<Vec<_>>(),
        "face": record.face.map(|f| json!({
            "id": f.id,
            "box": fractions(f.bounds),
            "score": f64::from(f.score) / 100.0,
        })),
        "voice": record.voice.map(|v| json!({ "active": v.active, "level_db": scaled(v.level, 10.0) })),
        "expression": record.face.and_then(|f| f.expression).map(|likely| {
            json!({ NAMES[usize::from(likely.index)]: f64::from(likely.percent) / 100.0 })
        }),
        "latency_ms": record.latency_ms,
    }))
}

/// x, y, width and height as fractions of the frame.
fn fractions(bounds: Bounds) -> [f64; 4] {
    let Bounds { x, y, w, h } = bounds;
    [x, y, w, h].map(|side| f64::from(side) / 10_000.0)
}

/// Numbers in ten-thousandths, so that they compare equal however they were printed.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(n) => json!((n.as_f64().unwrap() * 10_000.0).round()),
        Value::Array(items) => items.into_iter().map(rounded).collect(),
        Value::Object(map) => map.into_iter().map(|(key, v)| (key, rounded(v))).collect(),
        other => other,
    }
}

fn assert_same(reader: &Read, rust: &Read) {
    for (k, (other, rust)) in reader.messages.iter().zip(&rust.messages).enumerate() {
        assert_eq!(other, rust, "message {k}");
    }
    assert_eq!(
        (reader.messages.len(), reader.invalid),
        (rust.messages.len(), rust.invalid)
    );
}

/// A stream in which about every fourth frame is damaged.
fn damaged_stream() -> (Vec<Message>, Vec<u8>) {
    let mut noise = Noise(0x2545_F491_4F6C_DD1D);
    let mut sent = Vec::new();
    let mut stream = vec![7, 7, 7, 0];
    for _ in 0..5000 {
        let message = noise.message();
        let mut bytes = frame(&message);
        if noise.below(4u8) == 0 {
            noise.damage(&mut bytes);
        }
        stream.extend(bytes);
        sent.push(message);
    }
    (sent, stream)
}

fn c_reader(folder: &Path) -> Command {
    let program = folder.join("print");
    let compiled = Command::new("cc")
        .args([
            "-std=c99",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-Wconversion",
            "-O1",
        ])
        .arg("-o")
        .arg(&program)
        .arg(readers().join("affectd_wire_print.c"))
        .output()
        .expect("cc, which build-essential brings");
    assert!(compiled.status.success(), "{}", texts(&compiled).1);
    Command::new(program)
}

fn python_reader() -> Command {
    let mut command = Command::new("python3");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/python/affectd_reader/wire.py");
    command.arg("-B").arg(program);
    command
}

#[test]
fn all_readers_read_every_frame_sent() {
    let mut noise = Noise(42);
    let sent: Vec<Message> = (0..500).map(|_| noise.message()).collect();
    let stream: Vec<u8> = sent.iter().flat_map(frame).collect();
    let expected = Read {
        messages: sent.into_iter().map(as_json).collect(),
        invalid: 0,
    };
    let folder = tempfile::tempdir().unwrap();
    assert_same(&Read::by_rust(&stream), &expected);
    assert_same(&Read::by(&mut c_reader(folder.path()), &stream), &expected);
    assert_same(&Read::by(&mut python_reader(), &stream), &expected);
}

#[test]
fn all_readers_read_the_same_frames_of_a_damaged_stream_and_invent_none() {
    let (sent, stream) = damaged_stream();
    let rust = Read::by_rust(&stream);
    assert!(rust.invalid > 500 && rust.messages.len() > 3500);
    let sent: HashSet<String> = sent.into_iter().map(|m| as_json(m).to_string()).collect();
    let invented = rust.messages.iter().find(|m| !sent.contains(&m.to_string()));
    assert_eq!(invented, None, "a record that was not sent");
    let folder = tempfile::tempdir().unwrap();
    assert_same(&Read::by(&mut c_reader(folder.path()), &stream), &rust);
    assert_same(&Read::by(&mut python_reader(), &stream), &rust);
}

#[test]
fn the_c_header_compiles_as_cplusplus() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("sketch.cpp");
    fs::write(
        &source,
        "#include \"affectd_wire.h\"\nstatic affectd_wire_reader reader;\nint main() {\n    affectd_wire_estimate e;\n    \
         return affectd_wire_push(&reader, 0, &e) == AFFECTD_WIRE_NOTHING ? 0 : 1;\n}\n",
    )
    .unwrap();
    let compiled = Command::new("c++")
        .args([
            "-std=c++11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-fsyntax-only",
            "-I",
        ])
        .arg(readers())
        .arg(&source)
        .output()
        .expect("c++, which build-essential brings");
    assert!(compiled.status.success(), "{}", texts(&compiled).1);
}
