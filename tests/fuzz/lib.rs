//! The targets of `targets/`, for cargo-fuzz.

#[path = "targets/mod.rs"]
mod targets;

use std::ffi::c_void;

use targets::wire::{C_READERS, CReaders, OnResult};

unsafe extern "C" {
    fn affectd_wire_read_large(bytes: *const u8, length: usize, pass_on: OnResult, to: *mut c_void);
    fn affectd_wire_read_small(bytes: *const u8, length: usize, pass_on: OnResult, to: *mut c_void);
}

/// Checks one input of a target.
pub fn check(target: &str, data: &[u8]) {
    C_READERS.get_or_init(|| CReaders {
        large: affectd_wire_read_large,
        small: affectd_wire_read_small,
    });
    (targets::named(target).check)(data);
}
