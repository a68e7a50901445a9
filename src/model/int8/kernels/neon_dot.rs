//! ARMv8.2 with dot products: Cortex-A76, A78.
//!
//! SDOT adds four products of bytes to each of four sums of 32 bits, exactly, one operand being the same four bytes (of
//! the row) for all four columns. Everything but the products is as in [`super::neon`].

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::arithmetic::Bounds;
use super::super::gemm::{Scratch, Scratches};
use super::neon::{self, NR, Scale, round_rows, store};
use super::{DepthwiseRow, Family, Requantization, Wanted, Work};

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
        assert!(depth.is_multiple_of(KU) && rows.len() >= MR * depth);
        assert!(panel.len() >= depth * NR && acc.len() >= MR * NR);
        let acc = acc.as_mut_ptr();
        // SAFETY: dot products were detected before this family could be chosen; the slices are as long as asserted.
        unsafe {
            tile_of_8(depth, rows.as_ptr(), panel.as_ptr(), [vdupq_n_s32(0); 2], |sums| {
                store(&sums, acc)
            });
        }
    }

    fn quantized_panel(
        depth: usize,
        rows: &[i8],
        panel: &[i8],
        _acc: &mut [i32],
        wanted: Wanted,
        to: &Requantization,
        out: &mut [i8],
    ) {
        assert!(depth.is_multiple_of(KU) && panel.len() >= depth * NR);
        wanted.check(depth, rows, out, to);
        // SAFETY: dot products were detected before this family could be chosen; panel, rows, bias, factor and out are as
        // long as checked.
        unsafe { quantized_panel(depth, rows.as_ptr(), panel.as_ptr(), wanted, to, out.as_mut_ptr()) }
    }

    fn reach(rows: usize) -> usize {
        rows
    }

    fn as_packed(rows: &[i8]) -> Option<&[i8]> {
        Some(rows)
    }

    fn requantize_tile(acc: &[i32], wanted: Wanted, bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        neon::requantize_tile(acc, wanted, bias, factor, bounds, out);
    }

    fn scratch(scratches: &mut Scratches) -> &mut Scratch<i8> {
        &mut scratches.narrow
    }

    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        neon::pack_depthwise::<false>(weights, channels)
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

/// Products of one step of [`KU`] depths with the weights of eight columns: lane `$lane` of one row, or of the first `$count`.
macro_rules! step {
    (row $low:literal, $high:literal, $lane:literal, $a:literal, $b:literal, $row:literal) => {
        concat!(
            "sdot v",
            $a,
            ".4s, v",
            $low,
            ".16b, v",
            $row,
            ".4b[",
            $lane,
            "]\n",
            "sdot v",
            $b,
            ".4s, v",
            $high,
            ".16b, v",
            $row,
            ".4b[",
            $lane,
            "]\n",
        )
    };
    (1, $low:literal, $high:literal, $lane:literal) => {
        step!(row $low, $high, $lane, "0", "1", "16")
    };
    (2, $low:literal, $high:literal, $lane:literal) => {
        concat!(step!(1, $low, $high, $lane), step!(row $low, $high, $lane, "2", "3", "17"))
    };
    (4, $low:literal, $high:literal, $lane:literal) => {
        concat!(
            step!(2, $low, $high, $lane),
            step!(row $low, $high, $lane, "4", "5", "18"),
            step!(row $low, $high, $lane, "6", "7", "19"),
        )
    };
    (8, $low:literal, $high:literal, $lane:literal) => {
        concat!(
            step!(4, $low, $high, $lane),
            step!(row $low, $high, $lane, "8", "9", "20"),
            step!(row $low, $high, $lane, "10", "11", "21"),
            step!(row $low, $high, $lane, "12", "13", "22"),
            step!(row $low, $high, $lane, "14", "15", "23"),
        )
    };
}

/// Loads the next `$bytes` of one row, or of the first `$count`.
macro_rules! load {
    (row $size:literal, $bytes:literal, $into:literal, $row:literal) => {
        concat!("ldr ", $size, $into, ", [{", $row, "}], #", $bytes, "\n")
    };
    (1, $size:literal, $bytes:literal) => {
        load!(row $size, $bytes, "16", "row0")
    };
    (2, $size:literal, $bytes:literal) => {
        concat!(load!(1, $size, $bytes), load!(row $size, $bytes, "17", "row1"))
    };
    (4, $size:literal, $bytes:literal) => {
        concat!(
            load!(2, $size, $bytes),
            load!(row $size, $bytes, "18", "row2"),
            load!(row $size, $bytes, "19", "row3"),
        )
    };
    (8, $size:literal, $bytes:literal) => {
        concat!(
            load!(4, $size, $bytes),
            load!(row $size, $bytes, "20", "row4"),
            load!(row $size, $bytes, "21", "row5"),
            load!(row $size, $bytes, "22", "row6"),
            load!(row $size, $bytes, "23", "row7"),
        )
    };
}

/// Every row's sums start from those given for the first.
macro_rules! begin {
    (1) => {
        ""
    };
    (2) => {
        "mov v2.16b, v0.16b\n mov v3.16b, v1.16b\n"
    };
    (4) => {
        concat!(
            begin!(2),
            "mov v4.16b, v0.16b\n mov v5.16b, v1.16b\n mov v6.16b, v0.16b\n mov v7.16b, v1.16b\n",
        )
    };
    (8) => {
        concat!(
            begin!(4),
            "mov v8.16b, v0.16b\n mov v9.16b, v1.16b\n mov v10.16b, v0.16b\n mov v11.16b, v1.16b\n",
            "mov v12.16b, v0.16b\n mov v13.16b, v1.16b\n mov v14.16b, v0.16b\n mov v15.16b, v1.16b\n",
        )
    };
}

/// The sums of [`MR`] rows, eight columns each.
type Sums = [[int32x4_t; 2]; MR];

/// A function for tiles of `$count` rows.
macro_rules! tile_of {
    ($name:ident, $count:tt, $($row:ident = $nth:literal),*) => {
        /// In assembly: the intrinsic is not stable yet.
        ///
        /// v0 to v15 are sums, of eight columns for each row; v16 to v23 hold what comes next of each row, v24 to v31 the
        /// weights. Sums start from `bias` and go to `take` while they are in registers; those of rows that are not computed
        /// mean nothing.
        ///
        /// # Safety
        /// Dot products; `rows` points to as many rows of `depth` values as the name says, `panel` to depth × NR; `depth`
        /// is a multiple of KU.
        #[target_feature(enable = "dotprod")]
        #[inline]
        unsafe fn $name(
            depth: usize,
            rows: *const i8,
            panel: *const i8,
            bias: [int32x4_t; 2],
            take: impl FnOnce(Sums),
        ) {
            let (s0, s1, s2, s3): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
            let (s4, s5, s6, s7): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
            let (s8, s9, s10, s11): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
            let (s12, s13, s14, s15): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
            // SAFETY: sixteen depths at a time while there are as many, then eight, then four: rows and weights are read
            // once each, from the first to the last that the caller promised, and nothing is written.
            unsafe {
                asm!(
                    begin!($count),
                    "cbz {sixteens}, 3f",
                    "2:",
                    load!($count, "q", "16"),
                    "ldp q24, q25, [{weights}], #128",
                    "ldp q26, q27, [{weights}, #-96]",
                    "ldp q28, q29, [{weights}, #-64]",
                    "ldp q30, q31, [{weights}, #-32]",
                    step!($count, "24", "25", "0"),
                    step!($count, "26", "27", "1"),
                    step!($count, "28", "29", "2"),
                    step!($count, "30", "31", "3"),
                    "subs {sixteens}, {sixteens}, #1",
                    "b.ne 2b",
                    "3:",
                    "tbz {depth}, #3, 4f",
                    load!($count, "d", "8"),
                    "ldp q24, q25, [{weights}], #64",
                    "ldp q26, q27, [{weights}, #-32]",
                    step!($count, "24", "25", "0"),
                    step!($count, "26", "27", "1"),
                    "4:",
                    "tbz {depth}, #2, 5f",
                    load!($count, "s", "4"),
                    "ldp q24, q25, [{weights}]",
                    step!($count, "24", "25", "0"),
                    "5:",
                    $($row = inout(reg) rows.add($nth * depth) => _,)*
                    weights = inout(reg) panel => _,
                    sixteens = inout(reg) depth / 16 => _,
                    depth = in(reg) depth,
                    inout("v0") bias[0] => s0, inout("v1") bias[1] => s1, out("v2") s2, out("v3") s3,
                    out("v4") s4, out("v5") s5, out("v6") s6, out("v7") s7, out("v8") s8, out("v9") s9,
                    out("v10") s10, out("v11") s11, out("v12") s12, out("v13") s13, out("v14") s14, out("v15") s15,
                    out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _,
                    out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _,
                    out("v30") _, out("v31") _,
                    options(pure, readonly, nostack),
                );
            }
            take([
                [s0, s1],
                [s2, s3],
                [s4, s5],
                [s6, s7],
                [s8, s9],
                [s10, s11],
                [s12, s13],
                [s14, s15],
            ]);
        }
    };
}

tile_of!(
    tile_of_8,
    8,
    row0 = 0,
    row1 = 1,
    row2 = 2,
    row3 = 3,
    row4 = 4,
    row5 = 5,
    row6 = 6,
    row7 = 7
);
tile_of!(tile_of_4, 4, row0 = 0, row1 = 1, row2 = 2, row3 = 3);
tile_of!(tile_of_2, 2, row0 = 0, row1 = 1);
tile_of!(tile_of_1, 1, row0 = 0);

/// [`Family::quantized_panel`]
///
/// # Safety
/// Dot products; `depth` is a multiple of KU, `panel` points to depth × NR weights, `rows` to as many rows of `depth` values
/// as are wanted, `out` to room for what is wanted of them, and `to` holds NR values of each.
#[target_feature(enable = "dotprod")]
unsafe fn quantized_panel(
    depth: usize,
    rows: *const i8,
    panel: *const i8,
    wanted: Wanted,
    to: &Requantization,
    out: *mut i8,
) {
    let Wanted { columns, stride, .. } = wanted;
    let (mut row, mut out) = (rows, out);
    // SAFETY: as the caller promised; no more rows than are wanted are read or written.
    unsafe {
        let scale = Scale::load(to.bias.as_ptr(), to.factor.as_ptr(), to.bounds);
        for _ in 0..wanted.rows / MR {
            tile_of_8(depth, row, panel, scale.bias, |sums| {
                round_rows::<8>(&sums, &scale, columns, stride, out);
            });
            row = row.wrapping_add(MR * depth);
            out = out.wrapping_add(MR * stride);
        }
        if wanted.rows & 4 != 0 {
            tile_of_4(depth, row, panel, scale.bias, |sums| {
                round_rows::<4>(&sums, &scale, columns, stride, out);
            });
            row = row.wrapping_add(4 * depth);
            out = out.wrapping_add(4 * stride);
        }
        if wanted.rows & 2 != 0 {
            tile_of_2(depth, row, panel, scale.bias, |sums| {
                round_rows::<2>(&sums, &scale, columns, stride, out);
            });
            row = row.wrapping_add(2 * depth);
            out = out.wrapping_add(2 * stride);
        }
        if wanted.rows & 1 != 0 {
            tile_of_1(depth, row, panel, scale.bias, |sums| {
                round_rows::<1>(&sums, &scale, columns, stride, out);
            });
        }
    }
}
