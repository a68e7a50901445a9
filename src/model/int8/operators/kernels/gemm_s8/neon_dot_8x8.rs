//! Matrix products of s8 rows with s8 weights, by SDOT: up to eight rows by eight columns.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::super::layout::{OutputTile, Requantization};
use super::super::requantize_s32::neon::{Scale, store, write_rows};

/// Sixteen registers hold sums.
pub const MR: usize = 8;
pub const KR: usize = 4;

/// Adds the products of one step of [`KR`] depths with the weights of eight columns to the sums: of lane `$lane` of one row, or of
/// the first 1, 2, 4 or 8 rows.
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

/// Loads the next `$bytes` of one row, or of the first 1, 2, 4 or 8 rows.
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

/// Copies the start values of the first row to every other row.
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

/// Defines a function for tiles of `$count` rows.
macro_rules! tile_of {
    ($name:ident, $count:tt, $($row:ident = $nth:literal),*) => {
        /// In assembly, because the intrinsic is not stable yet.
        ///
        /// v0 to v15 are sums, two registers of four columns per row; v16 to v23 hold the next depths of each row, v24 to v31
        /// the weights. Sums start from `bias` and are passed to `take` in registers. The sums of rows that are not computed are
        /// unspecified.
        ///
        /// # Safety
        /// The processor has dot products. For a function `tile_of_N`, `rows` points to N rows of `depth` values; `panel` points
        /// to depth × NR weights; `depth` is a multiple of KR.
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
            // SAFETY: sixteen depths at a time while at least sixteen are left, then eight, then four. Rows and weights are read
            // once each, within what the caller promised, and nothing is written.
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

/// # Safety
/// As for [`tile_of_8`]; `acc` points to MR × NR values.
#[target_feature(enable = "dotprod")]
pub unsafe fn accumulate_tile(depth: usize, rows: *const i8, panel: *const i8, acc: *mut i32) {
    // SAFETY: the caller promises what `tile_of_8` needs, and room for MR × NR sums.
    unsafe {
        tile_of_8(depth, rows, panel, [vdupq_n_s32(0); 2], |sums| store(&sums, acc));
    }
}

/// # Safety
/// As for [`tile_of_8`], with `tile.rows` rows; `tile.rows` is not 0; bias and factor hold NR values; `out` has room for `tile`.
#[target_feature(enable = "dotprod")]
pub unsafe fn quantized_panel(
    depth: usize,
    mut rows: *const i8,
    panel: *const i8,
    tile: OutputTile,
    params: &Requantization,
    mut out: *mut i8,
) {
    let OutputTile { columns, stride, .. } = tile;
    // SAFETY: exactly `tile.rows` rows are read and written, and the caller promises those.
    unsafe {
        let scale = Scale::load(params);
        for _ in 0..tile.rows / MR {
            tile_of_8(depth, rows, panel, scale.bias, |sums| {
                write_rows::<8>(&sums, &scale, columns, stride, out);
            });
            rows = rows.wrapping_add(MR * depth);
            out = out.wrapping_add(MR * stride);
        }
        if tile.rows & 4 != 0 {
            tile_of_4(depth, rows, panel, scale.bias, |sums| {
                write_rows::<4>(&sums, &scale, columns, stride, out);
            });
            rows = rows.wrapping_add(4 * depth);
            out = out.wrapping_add(4 * stride);
        }
        if tile.rows & 2 != 0 {
            tile_of_2(depth, rows, panel, scale.bias, |sums| {
                write_rows::<2>(&sums, &scale, columns, stride, out);
            });
            rows = rows.wrapping_add(2 * depth);
            out = out.wrapping_add(2 * stride);
        }
        if tile.rows & 1 != 0 {
            tile_of_1(depth, rows, panel, scale.bias, |sums| {
                write_rows::<1>(&sums, &scale, columns, stride, out);
            });
        }
    }
}
