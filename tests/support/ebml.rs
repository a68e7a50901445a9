//! The library's EBML encoder. It is included by path, because the library does not export it.
#![allow(dead_code, reason = "each test uses a part")]

#[path = "../../src/capture/clip/ebml/encode.rs"]
pub mod encode;
#[path = "../../src/capture/clip/ebml/ids.rs"]
pub mod ids;
