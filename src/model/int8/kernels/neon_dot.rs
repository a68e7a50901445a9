//! ARMv8.2 with dot products: Cortex-A76, A78.
//!
//! SDOT adds four products of bytes to each of four sums of 32 bits, exactly, one operand being the same four bytes (of
//! the row) for all four columns. Everything but the products is as in [`super::neon`].

use std::arch::asm;

use super::super::arithmetic::Bounds;
use super::super::gemm::{Scratch, Scratches};
use super::neon::{self, NR, Neon};
use super::{DepthwiseRow, Family, Wanted, Work};

pub struct NeonDot;

const MR: usize = 8;
const KU: usize = 4;

impl Family for NeonDot {
    type Lane = i8;
    type NonNegative = NeonDot;
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = KU;

    fn tile(depth: usize, _columns: usize, rows: &[i8], panel: &[i8], acc: &mut [i32]) {
        assert!(depth.is_multiple_of(KU));
        assert!(rows.len() >= MR * depth && panel.len() >= depth * NR && acc.len() >= MR * NR);
        // SAFETY: dot products were detected before this family could be chosen; the slices are as long as asserted.
        unsafe { tile(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()) }
    }

    fn requantize(acc: &[i32], bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        Neon::<false>::requantize(acc, bias, factor, bounds, out);
    }

    fn requantize_tile(acc: &[i32], wanted: Wanted, bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        neon::requantize_tile(acc, wanted, bias, factor, bounds, out);
    }

    fn scratch(scratches: &mut Scratches) -> &mut Scratch<i8> {
        &mut scratches.narrow
    }

    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        neon::pack_depthwise(weights, channels)
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        neon::depthwise(row, out);
    }

    fn look_up(table: &[i8; 256], values: &[i8], out: &mut [i8]) {
        neon::look_up(table, values, out);
    }

    fn compiled<W: Work>(work: W) {
        #[target_feature(enable = "dotprod")]
        fn call<W: Work>(work: W) {
            work.run();
        }
        // SAFETY: dot products were detected before this family could be chosen.
        unsafe { call(work) }
    }
}

/// Products of one step of [`KU`] depths: lane `$lane` of the eight rows with the weights of eight columns.
macro_rules! step {
    ($low:literal, $high:literal, $lane:literal) => {
        concat!(
            "sdot v0.4s, v",
            $low,
            ".16b, v16.4b[",
            $lane,
            "]\n",
            "sdot v1.4s, v",
            $high,
            ".16b, v16.4b[",
            $lane,
            "]\n",
            "sdot v2.4s, v",
            $low,
            ".16b, v17.4b[",
            $lane,
            "]\n",
            "sdot v3.4s, v",
            $high,
            ".16b, v17.4b[",
            $lane,
            "]\n",
            "sdot v4.4s, v",
            $low,
            ".16b, v18.4b[",
            $lane,
            "]\n",
            "sdot v5.4s, v",
            $high,
            ".16b, v18.4b[",
            $lane,
            "]\n",
            "sdot v6.4s, v",
            $low,
            ".16b, v19.4b[",
            $lane,
            "]\n",
            "sdot v7.4s, v",
            $high,
            ".16b, v19.4b[",
            $lane,
            "]\n",
            "sdot v8.4s, v",
            $low,
            ".16b, v20.4b[",
            $lane,
            "]\n",
            "sdot v9.4s, v",
            $high,
            ".16b, v20.4b[",
            $lane,
            "]\n",
            "sdot v10.4s, v",
            $low,
            ".16b, v21.4b[",
            $lane,
            "]\n",
            "sdot v11.4s, v",
            $high,
            ".16b, v21.4b[",
            $lane,
            "]\n",
            "sdot v12.4s, v",
            $low,
            ".16b, v22.4b[",
            $lane,
            "]\n",
            "sdot v13.4s, v",
            $high,
            ".16b, v22.4b[",
            $lane,
            "]\n",
            "sdot v14.4s, v",
            $low,
            ".16b, v23.4b[",
            $lane,
            "]\n",
            "sdot v15.4s, v",
            $high,
            ".16b, v23.4b[",
            $lane,
            "]\n",
        )
    };
}

/// Loads the next `$bytes` of each row.
macro_rules! load {
    ($size:literal, $bytes:literal) => {
        concat!(
            "ldr ",
            $size,
            "16, [{row0}], #",
            $bytes,
            "\n",
            "ldr ",
            $size,
            "17, [{row1}], #",
            $bytes,
            "\n",
            "ldr ",
            $size,
            "18, [{row2}], #",
            $bytes,
            "\n",
            "ldr ",
            $size,
            "19, [{row3}], #",
            $bytes,
            "\n",
            "ldr ",
            $size,
            "20, [{row4}], #",
            $bytes,
            "\n",
            "ldr ",
            $size,
            "21, [{row5}], #",
            $bytes,
            "\n",
            "ldr ",
            $size,
            "22, [{row6}], #",
            $bytes,
            "\n",
            "ldr ",
            $size,
            "23, [{row7}], #",
            $bytes,
            "\n",
        )
    };
}

/// In assembly: the intrinsic is not stable yet.
///
/// v0 to v15 are sums, of eight columns for each row; v16 to v23 hold what comes next of each row, v24 to v31 the weights.
///
/// # Safety
/// Dot products; `rows` points to MR × depth values, `panel` to depth × NR, `acc` to MR × NR; `depth` is a multiple of KU.
#[target_feature(enable = "dotprod")]
unsafe fn tile(depth: usize, rows: *const i8, panel: *const i8, acc: *mut i32) {
    // SAFETY: sixteen depths at a time while there are as many, then eight, then four: rows and weights are read once each,
    // from the first to the last that the caller promised, and MR × NR sums are written.
    unsafe {
        asm!(
            "movi v0.4s, #0", "movi v1.4s, #0", "movi v2.4s, #0", "movi v3.4s, #0",
            "movi v4.4s, #0", "movi v5.4s, #0", "movi v6.4s, #0", "movi v7.4s, #0",
            "movi v8.4s, #0", "movi v9.4s, #0", "movi v10.4s, #0", "movi v11.4s, #0",
            "movi v12.4s, #0", "movi v13.4s, #0", "movi v14.4s, #0", "movi v15.4s, #0",
            "cbz {sixteens}, 3f",
            "2:",
            load!("q", "16"),
            "ldp q24, q25, [{weights}], #128",
            "ldp q26, q27, [{weights}, #-96]",
            "ldp q28, q29, [{weights}, #-64]",
            "ldp q30, q31, [{weights}, #-32]",
            step!("24", "25", "0"),
            step!("26", "27", "1"),
            step!("28", "29", "2"),
            step!("30", "31", "3"),
            "subs {sixteens}, {sixteens}, #1",
            "b.ne 2b",
            "3:",
            "tbz {depth}, #3, 4f",
            load!("d", "8"),
            "ldp q24, q25, [{weights}], #64",
            "ldp q26, q27, [{weights}, #-32]",
            step!("24", "25", "0"),
            step!("26", "27", "1"),
            "4:",
            "tbz {depth}, #2, 5f",
            load!("s", "4"),
            "ldp q24, q25, [{weights}]",
            step!("24", "25", "0"),
            "5:",
            "stp q0, q1, [{acc}]",
            "stp q2, q3, [{acc}, #32]",
            "stp q4, q5, [{acc}, #64]",
            "stp q6, q7, [{acc}, #96]",
            "stp q8, q9, [{acc}, #128]",
            "stp q10, q11, [{acc}, #160]",
            "stp q12, q13, [{acc}, #192]",
            "stp q14, q15, [{acc}, #224]",
            row0 = inout(reg) rows => _,
            row1 = inout(reg) rows.add(depth) => _,
            row2 = inout(reg) rows.add(2 * depth) => _,
            row3 = inout(reg) rows.add(3 * depth) => _,
            row4 = inout(reg) rows.add(4 * depth) => _,
            row5 = inout(reg) rows.add(5 * depth) => _,
            row6 = inout(reg) rows.add(6 * depth) => _,
            row7 = inout(reg) rows.add(7 * depth) => _,
            weights = inout(reg) panel => _,
            sixteens = inout(reg) depth / 16 => _,
            depth = in(reg) depth,
            acc = in(reg) acc,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _,
            out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
            out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _,
            out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }
}
