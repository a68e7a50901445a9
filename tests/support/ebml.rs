//! The EBML encoder of the library, which does not export it.
#![allow(dead_code, reason = "each test uses a part")]

#[path = "../../src/capture/clip/ebml/encode.rs"]
pub mod encode;
#[path = "../../src/capture/clip/ebml/ids.rs"]
pub mod ids;
