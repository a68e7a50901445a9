//! Encodes EBML elements.

use super::ids;

/// The size field of an element whose writer does not know its size.
pub const UNKNOWN_SIZE: u64 = (1 << 56) - 1;

/// The EBML header of a Matroska file.
pub fn matroska_header() -> Vec<u8> {
    let versions = [
        (ids::EBML_VERSION, 1),
        (ids::EBML_READ_VERSION, 1),
        (ids::EBML_MAX_ID_LENGTH, 4),
        (ids::EBML_MAX_SIZE_LENGTH, 8),
        (ids::DOC_TYPE_VERSION, 4),
        (ids::DOC_TYPE_READ_VERSION, 2),
    ];
    let mut content: Vec<u8> = versions.iter().flat_map(|&(id, value)| uint(id, value)).collect();
    content.extend(element(ids::DOC_TYPE, b"matroska"));
    element(ids::EBML, &content)
}

pub fn element(id: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(id, content.len() as u64);
    bytes.extend_from_slice(content);
    bytes
}

/// An unsigned integer element, always of eight bytes.
pub fn uint(id: u32, value: u64) -> Vec<u8> {
    element(id, &value.to_be_bytes())
}

/// Id and size of an element. The size always takes eight bytes, which every reader accepts.
pub fn header(id: u32, size: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = id.to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect();
    bytes.extend((size | 1 << 56).to_be_bytes());
    bytes
}
