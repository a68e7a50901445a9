//! Matrix products of s8 rows with s8 weights, by SMMLA: up to eight rows by eight columns.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::super::layout::{OutputTile, Requantization};
use super::super::requantize_s32::neon::{Scale, store, write_rows};

/// Sixteen registers hold sums.
pub const MR: usize = 8;
/// One operand holds eight depths of two rows, the other eight depths of two columns.
pub const KR: usize = 8;

/// Adds the products of eight depths to the sums of one pair of rows, `$a` to `$d`, or of the first 1, 2 or 4 pairs.
macro_rules! step {
    (pair $a:literal, $b:literal, $c:literal, $d:literal, $rows:literal) => {
        concat!(
            "smmla v",
            $a,
            ".4s, v",
            $rows,
            ".16b, v24.16b\n",
            "smmla v",
            $b,
            ".4s, v",
            $rows,
            ".16b, v25.16b\n",
            "smmla v",
            $c,
            ".4s, v",
            $rows,
            ".16b, v26.16b\n",
            "smmla v",
            $d,
            ".4s, v",
            $rows,
            ".16b, v27.16b\n",
        )
    };
    (1) => {
        step!(2)
    };
    (2) => {
        step!(pair "0", "1", "2", "3", "28")
    };
    (4) => {
        concat!(step!(2), step!(pair "4", "5", "6", "7", "29"))
    };
    (8) => {
        concat!(
            step!(4),
            step!(pair "8", "9", "10", "11", "30"),
            step!(pair "12", "13", "14", "15", "31"),
        )
    };
}

/// Puts eight depths of two rows into one register, for the first 1, 2, 4 or 8 rows: the first eight with `zip1`, the next eight
/// with `zip2`. A single row makes a pair with itself.
macro_rules! pair {
    (1, $zip:literal) => {
        concat!($zip, " v28.2d, v16.2d, v16.2d\n")
    };
    (2, $zip:literal) => {
        concat!($zip, " v28.2d, v16.2d, v17.2d\n")
    };
    (4, $zip:literal) => {
        concat!(pair!(2, $zip), $zip, " v29.2d, v18.2d, v19.2d\n")
    };
    (8, $zip:literal) => {
        concat!(
            pair!(4, $zip),
            $zip,
            " v30.2d, v20.2d, v21.2d\n",
            $zip,
            " v31.2d, v22.2d, v23.2d\n",
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

/// Copies the start values of the first pair of rows to every other pair.
macro_rules! begin {
    (1) => {
        ""
    };
    (2) => {
        ""
    };
    (4) => {
        "mov v4.16b, v0.16b\n mov v5.16b, v1.16b\n mov v6.16b, v2.16b\n mov v7.16b, v3.16b\n"
    };
    (8) => {
        concat!(
            begin!(4),
            "mov v8.16b, v0.16b\n mov v9.16b, v1.16b\n mov v10.16b, v2.16b\n mov v11.16b, v3.16b\n",
            "mov v12.16b, v0.16b\n mov v13.16b, v1.16b\n mov v14.16b, v2.16b\n mov v15.16b, v3.16b\n",
        )
    };
}

/// The sums of [`MR`] rows, eight columns each.
type Sums = [[int32x4_t; 2]; MR];
/// The sums of two rows as SMMLA makes them: a register for every two columns, with the first row in its low half.
type Pair = [int32x4_t; 4];

/// The low or high halves of two registers.
#[target_feature(enable = "neon")]
#[inline]
fn halves<const HIGH: bool>(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    let (a, b) = (vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b));
    vreinterpretq_s32_s64(if HIGH { vzip2q_s64(a, b) } else { vzip1q_s64(a, b) })
}

/// Both rows of a pair.
#[target_feature(enable = "neon")]
#[inline]
fn rows_of([a, b, c, d]: Pair) -> [[int32x4_t; 2]; 2] {
    [
        [halves::<false>(a, b), halves::<false>(c, d)],
        [halves::<true>(a, b), halves::<true>(c, d)],
    ]
}

/// Start values of a pair: both rows begin with `bias`.
#[target_feature(enable = "neon")]
#[inline]
fn pair_of([low, high]: [int32x4_t; 2]) -> Pair {
    [
        halves::<false>(low, low),
        halves::<true>(low, low),
        halves::<false>(high, high),
        halves::<true>(high, high),
    ]
}

/// Defines a function for tiles of `$count` rows.
macro_rules! tile_of {
    ($name:ident, $count:tt, $($row:ident = $nth:literal),*) => {
        /// In assembly, because the intrinsic is not stable yet.
        ///
        /// v0 to v15 are sums, four registers of two columns per pair of rows; v16 to v23 hold the next depths of each row, v24 to
        /// v27 the weights, v28 to v31 eight depths of each pair of rows. Sums start from `bias`. The sums of rows that are not
        /// computed are unspecified.
        ///
        /// # Safety
        /// The processor has 8-bit matrix products. For a function `tile_of_N`, `rows` points to N rows of `depth` values;
        /// `panel` points to depth × NR weights; `depth` is a multiple of KR.
        #[target_feature(enable = "neon,i8mm")]
        #[inline]
        unsafe fn $name(
            depth: usize,
            rows: *const i8,
            panel: *const i8,
            bias: [int32x4_t; 2],
            take: impl FnOnce(Sums),
        ) {
            let [b0, b1, b2, b3] = pair_of(bias);
            let (s0, s1, s2, s3): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
            let (s4, s5, s6, s7): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
            let (s8, s9, s10, s11): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
            let (s12, s13, s14, s15): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
            // SAFETY: sixteen depths at a time while at least sixteen are left, then eight. Rows and weights are read once each,
            // within what the caller promised, and nothing is written.
            unsafe {
                asm!(
                    begin!($count),
                    "cbz {sixteens}, 3f",
                    "2:",
                    load!($count, "q", "16"),
                    "ldp q24, q25, [{weights}], #128",
                    "ldp q26, q27, [{weights}, #-96]",
                    pair!($count, "zip1"),
                    step!($count),
                    "ldp q24, q25, [{weights}, #-64]",
                    "ldp q26, q27, [{weights}, #-32]",
                    pair!($count, "zip2"),
                    step!($count),
                    "subs {sixteens}, {sixteens}, #1",
                    "b.ne 2b",
                    "3:",
                    "tbz {depth}, #3, 4f",
                    load!($count, "d", "8"),
                    "ldp q24, q25, [{weights}]",
                    "ldp q26, q27, [{weights}, #32]",
                    pair!($count, "zip1"),
                    step!($count),
                    "4:",
                    $($row = inout(reg) rows.add($nth * depth) => _,)*
                    weights = inout(reg) panel => _,
                    sixteens = inout(reg) depth / 16 => _,
                    depth = in(reg) depth,
                    inout("v0") b0 => s0, inout("v1") b1 => s1, inout("v2") b2 => s2, inout("v3") b3 => s3,
                    out("v4") s4, out("v5") s5, out("v6") s6, out("v7") s7, out("v8") s8, out("v9") s9,
                    out("v10") s10, out("v11") s11, out("v12") s12, out("v13") s13, out("v14") s14, out("v15") s15,
                    out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _,
                    out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _,
                    out("v30") _, out("v31") _,
                    options(pure, readonly, nostack),
                );
            }
            let [r0, r1] = rows_of([s0, s1, s2, s3]);
            let [r2, r3] = rows_of([s4, s5, s6, s7]);
            let [r4, r5] = rows_of([s8, s9, s10, s11]);
            let [r6, r7] = rows_of([s12, s13, s14, s15]);
            take([r0, r1, r2, r3, r4, r5, r6, r7]);
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
#[target_feature(enable = "neon,i8mm")]
pub unsafe fn accumulate_tile(depth: usize, rows: *const i8, panel: *const i8, acc: *mut i32) {
    // SAFETY: the caller promises what `tile_of_8` needs, and room for MR × NR sums.
    unsafe {
        tile_of_8(depth, rows, panel, [vdupq_n_s32(0); 2], |sums| store(&sums, acc));
    }
}

/// # Safety
/// As for [`tile_of_8`], with `tile.rows` rows; `tile.rows` is not 0; bias and factor hold NR values; `out` has room for `tile`.
#[target_feature(enable = "neon,i8mm")]
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
