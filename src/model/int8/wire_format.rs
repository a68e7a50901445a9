//! Checks a file before it is decoded. Two bytes of Protobuf can stand for a message of several hundred bytes in memory.

use tract_onnx::pb::type_proto::Tensor;
use tract_onnx::pb::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    StringStringEntryProto, TensorAnnotation, TensorProto, TensorShapeProto, TrainingInfoProto, TypeProto,
    ValueInfoProto, tensor_shape_proto::Dimension,
};

use super::limits::MAX_DECODED_BYTES;

/// How deep messages may be nested.
const MAX_DEPTH: usize = 32;

/// Why a file is not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("is not an ONNX file, or damaged")]
    Malformed,
    #[error("has messages that are nested too deep")]
    TooDeep,
    #[error("takes more than {} MiB in memory", MAX_DECODED_BYTES >> 20)]
    TooLarge,
}

/// A message of ONNX.
struct Message {
    /// Its size in memory.
    bytes: usize,
    fields: &'static [(u64, Field)],
}

enum Field {
    Message(&'static Message),
    /// Integers of this size in memory. In the file, each of them may take a single byte.
    Integers(usize),
}

/// A vector that grows may have twice the room that it needs.
const fn in_memory<T>() -> usize {
    2 * size_of::<T>()
}

static MODEL: Message = Message {
    bytes: in_memory::<ModelProto>(),
    fields: &[
        (7, Field::Message(&GRAPH)),
        (8, Field::Message(&OPERATOR_SET)),
        (14, Field::Message(&ENTRY)),
        (20, Field::Message(&TRAINING)),
        (25, Field::Message(&FUNCTION)),
    ],
};
static OPERATOR_SET: Message = Message {
    bytes: in_memory::<OperatorSetIdProto>(),
    fields: &[],
};
static ENTRY: Message = Message {
    bytes: in_memory::<StringStringEntryProto>(),
    fields: &[],
};
static TRAINING: Message = Message {
    bytes: in_memory::<TrainingInfoProto>(),
    fields: &[
        (1, Field::Message(&GRAPH)),
        (2, Field::Message(&GRAPH)),
        (3, Field::Message(&ENTRY)),
        (4, Field::Message(&ENTRY)),
    ],
};
static FUNCTION: Message = Message {
    bytes: in_memory::<FunctionProto>(),
    fields: &[(7, Field::Message(&NODE)), (9, Field::Message(&OPERATOR_SET))],
};
static GRAPH: Message = Message {
    bytes: in_memory::<GraphProto>(),
    fields: &[
        (1, Field::Message(&NODE)),
        (5, Field::Message(&TENSOR)),
        (11, Field::Message(&VALUE_INFO)),
        (12, Field::Message(&VALUE_INFO)),
        (13, Field::Message(&VALUE_INFO)),
        (14, Field::Message(&ANNOTATION)),
        (15, Field::Message(&SPARSE_TENSOR)),
    ],
};
static NODE: Message = Message {
    bytes: in_memory::<NodeProto>(),
    fields: &[(5, Field::Message(&ATTRIBUTE))],
};
static ATTRIBUTE: Message = Message {
    bytes: in_memory::<AttributeProto>(),
    fields: &[
        (5, Field::Message(&TENSOR)),
        (6, Field::Message(&GRAPH)),
        (8, Field::Integers(size_of::<i64>())),
        (10, Field::Message(&TENSOR)),
        (11, Field::Message(&GRAPH)),
        (15, Field::Message(&TYPE)),
        (22, Field::Message(&SPARSE_TENSOR)),
        (23, Field::Message(&SPARSE_TENSOR)),
    ],
};
static TENSOR: Message = Message {
    bytes: in_memory::<TensorProto>(),
    fields: &[
        (1, Field::Integers(size_of::<i64>())),
        (5, Field::Integers(size_of::<i32>())),
        (7, Field::Integers(size_of::<i64>())),
        (11, Field::Integers(size_of::<u64>())),
        (13, Field::Message(&ENTRY)),
    ],
};
static SPARSE_TENSOR: Message = Message {
    bytes: in_memory::<SparseTensorProto>(),
    fields: &[
        (1, Field::Message(&TENSOR)),
        (2, Field::Message(&TENSOR)),
        (3, Field::Integers(size_of::<i64>())),
    ],
};
static ANNOTATION: Message = Message {
    bytes: in_memory::<TensorAnnotation>(),
    fields: &[(2, Field::Message(&ENTRY))],
};
static VALUE_INFO: Message = Message {
    bytes: in_memory::<ValueInfoProto>(),
    fields: &[(2, Field::Message(&TYPE))],
};
static TYPE: Message = Message {
    bytes: in_memory::<TypeProto>(),
    fields: &[(1, Field::Message(&TENSOR_TYPE))],
};
static TENSOR_TYPE: Message = Message {
    bytes: in_memory::<Tensor>(),
    fields: &[(2, Field::Message(&SHAPE))],
};
static SHAPE: Message = Message {
    bytes: in_memory::<TensorShapeProto>(),
    fields: &[(1, Field::Message(&DIMENSION))],
};
static DIMENSION: Message = Message {
    bytes: in_memory::<Dimension>(),
    fields: &[],
};

/// Checks that `file` has the form of Protobuf and how much memory it takes when it is decoded.
pub fn check(file: &[u8]) -> Result<(), WireError> {
    let mut decoded = 0;
    message(file, &MODEL, 0, &mut decoded)
}

fn message(mut rest: &[u8], kind: &Message, depth: usize, decoded: &mut usize) -> Result<(), WireError> {
    if depth > MAX_DEPTH {
        return Err(WireError::TooDeep);
    }
    add(decoded, kind.bytes)?;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        if key >> 3 == 0 {
            return Err(WireError::Malformed);
        }
        let field = kind.fields.iter().find(|(number, _)| *number == key >> 3);
        let integer = match field {
            Some((_, Field::Integers(bytes))) => *bytes,
            _ => size_of::<u64>(),
        };
        match key & 7 {
            0 => {
                varint(&mut rest)?;
                add(decoded, 2 * integer)?;
            }
            1 => {
                take(&mut rest, 8)?;
                add(decoded, 16)?;
            }
            5 => {
                take(&mut rest, 4)?;
                add(decoded, 8)?;
            }
            2 => {
                let length = varint(&mut rest)?;
                let content = take(&mut rest, usize::try_from(length).map_err(|_| WireError::Malformed)?)?;
                match field {
                    Some((_, Field::Message(kind))) => message(content, kind, depth + 1, decoded)?,
                    Some((_, Field::Integers(bytes))) => {
                        let count = content.iter().filter(|byte| **byte < 0x80).count();
                        add(decoded, count * bytes)?;
                    }
                    // Bytes, a string, or packed numbers of a fixed size.
                    None => add(decoded, content.len() + 2 * size_of::<String>())?,
                }
            }
            // Groups do not occur in ONNX.
            _ => return Err(WireError::Malformed),
        }
    }
    Ok(())
}

fn add(decoded: &mut usize, bytes: usize) -> Result<(), WireError> {
    *decoded = decoded.saturating_add(bytes);
    match *decoded <= MAX_DECODED_BYTES {
        true => Ok(()),
        false => Err(WireError::TooLarge),
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], WireError> {
    let (taken, after) = rest.split_at_checked(count).ok_or(WireError::Malformed)?;
    *rest = after;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte, after @ ..] = rest else {
            return Err(WireError::Malformed);
        };
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(WireError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that holds bytes.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            bytes.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend_from_slice(content);
        bytes
    }

    #[test]
    fn many_empty_messages_are_rejected() {
        for number in [1, 5, 11, 12, 13] {
            let messages = field(number, &[]).repeat(2_000_000);
            assert_eq!(check(&field(7, &messages)), Err(WireError::TooLarge), "{number}");
        }
        let names = field(1, &field(1, &[]).repeat(4_000_000));
        assert_eq!(check(&field(7, &names)), Err(WireError::TooLarge));
        let integers = field(5, &field(7, &vec![1; 16 << 20]));
        assert_eq!(check(&field(7, &integers)), Err(WireError::TooLarge));
    }

    #[test]
    fn raw_weights_of_the_largest_file_are_accepted() {
        let weights = field(5, &field(9, &vec![0xff; 31 << 20]));
        assert_eq!(check(&field(7, &weights)), Ok(()));
    }

    #[test]
    fn deep_messages_are_rejected() {
        let mut graph = vec![];
        for _ in 0..100 {
            graph = field(1, &field(5, &field(6, &graph)));
        }
        assert_eq!(check(&field(7, &graph)), Err(WireError::TooDeep));
    }

    #[test]
    fn other_files_are_rejected() {
        for file in [
            &b"hello world\n"[..],
            &[0xff; 100],
            &[0; 100],
            &[0x3a, 5, 1],
            b"\x89PNG\r\n\x1a\n",
        ] {
            assert_eq!(check(file), Err(WireError::Malformed), "{file:?}");
        }
    }
}
