//! Matrix products of s8 rows with s8 weights: up to four rows by eight columns.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::super::layout::{OutputTile, Requantization};
use super::super::requantize_s32::neon::{NR, Scale, store, write_rows};

pub const MR: usize = 4;
pub const KR: usize = 4;
/// Steps of [`KR`] depths that share a byte of metadata.
pub const GROUP: usize = 4;

/// Multiplies one row's depths of a step by the weights in `$low` and `$high` (four pairs of columns): `smull` starts 16-bit
/// sums, `smlal` adds to them.
macro_rules! products {
    ($multiply:literal, $low:literal, $high:literal, $row:literal) => {
        concat!(
            $multiply,
            " v28.8h, v",
            $low,
            ".8b, v",
            $row,
            ".8b\n",
            $multiply,
            "2 v29.8h, v",
            $low,
            ".16b, v",
            $row,
            ".16b\n",
            $multiply,
            " v30.8h, v",
            $high,
            ".8b, v",
            $row,
            ".8b\n",
            $multiply,
            "2 v31.8h, v",
            $high,
            ".16b, v",
            $row,
            ".16b\n",
        )
    };
}

/// Adds the 16-bit sums, pairwise, to a row's 32-bit sums.
macro_rules! reduce {
    ($a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "sadalp v",
            $a,
            ".4s, v28.8h\n",
            "sadalp v",
            $b,
            ".4s, v29.8h\n",
            "sadalp v",
            $c,
            ".4s, v30.8h\n",
            "sadalp v",
            $d,
            ".4s, v31.8h\n",
        )
    };
}

/// Expands `$row` (one, two, three or four steps whose products are added in 16 bits) for every row. The weights are loaded
/// before.
macro_rules! for_rows {
    ($row:ident, 1) => {
        $row!("row0", "0", "1", "2", "3")
    };
    ($row:ident, 2) => {
        concat!(for_rows!($row, 1), $row!("row1", "4", "5", "6", "7"))
    };
    ($row:ident, 4) => {
        concat!(
            for_rows!($row, 2),
            $row!("row2", "8", "9", "10", "11"),
            $row!("row3", "12", "13", "14", "15"),
        )
    };
}

/// One step of one row.
macro_rules! one {
    ($row:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "ld1r {{v24.4s}}, [{",
            $row,
            "}], #4\n",
            products!("smull", "16", "17", "24"),
            reduce!($a, $b, $c, $d),
        )
    };
}

/// Two steps of one row.
macro_rules! two {
    ($row:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "ld1r {{v24.4s}}, [{",
            $row,
            "}], #4\n",
            "ld1r {{v25.4s}}, [{",
            $row,
            "}], #4\n",
            products!("smull", "16", "17", "24"),
            products!("smlal", "18", "19", "25"),
            reduce!($a, $b, $c, $d),
        )
    };
}

/// Three steps of one row.
macro_rules! three {
    ($row:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "ld1r {{v24.4s}}, [{",
            $row,
            "}], #4\n",
            "ld1r {{v25.4s}}, [{",
            $row,
            "}], #4\n",
            "ld1r {{v26.4s}}, [{",
            $row,
            "}], #4\n",
            products!("smull", "16", "17", "24"),
            products!("smlal", "18", "19", "25"),
            products!("smlal", "20", "21", "26"),
            reduce!($a, $b, $c, $d),
        )
    };
}

/// Four steps of one row.
macro_rules! four {
    ($row:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "ld1r {{v24.4s}}, [{",
            $row,
            "}], #4\n",
            "ld1r {{v25.4s}}, [{",
            $row,
            "}], #4\n",
            "ld1r {{v26.4s}}, [{",
            $row,
            "}], #4\n",
            "ld1r {{v27.4s}}, [{",
            $row,
            "}], #4\n",
            products!("smull", "16", "17", "24"),
            products!("smlal", "18", "19", "25"),
            products!("smlal", "20", "21", "26"),
            products!("smlal", "22", "23", "27"),
            reduce!($a, $b, $c, $d),
        )
    };
}

/// Copies the start values of the first row to every other row.
macro_rules! begin {
    (1) => {
        ""
    };
    (2) => {
        "mov v4.16b, v0.16b\n mov v5.16b, v1.16b\n mov v6.16b, v2.16b\n mov v7.16b, v3.16b\n"
    };
    (4) => {
        concat!(
            begin!(2),
            "mov v8.16b, v0.16b\n mov v9.16b, v1.16b\n mov v10.16b, v2.16b\n mov v11.16b, v3.16b\n",
            "mov v12.16b, v0.16b\n mov v13.16b, v1.16b\n mov v14.16b, v2.16b\n mov v15.16b, v3.16b\n",
        )
    };
}

/// Adds the two halves of each column's sum.
macro_rules! end {
    (1) => {
        "addp v0.4s, v0.4s, v1.4s\n addp v1.4s, v2.4s, v3.4s\n"
    };
    (2) => {
        concat!(end!(1), "addp v2.4s, v4.4s, v5.4s\n addp v3.4s, v6.4s, v7.4s\n")
    };
    (4) => {
        concat!(
            end!(2),
            "addp v4.4s, v8.4s, v9.4s\n addp v5.4s, v10.4s, v11.4s\n",
            "addp v6.4s, v12.4s, v13.4s\n addp v7.4s, v14.4s, v15.4s\n",
        )
    };
}

/// The sums of [`MR`] rows, eight columns each.
type Sums = [[int32x4_t; 2]; MR];

/// The start values of the two halves of each column's sum: the bias and zero.
#[inline(always)]
fn spread(bias: [int32x4_t; 2]) -> [[int32x4_t; 2]; 2] {
    // SAFETY: every aarch64 processor has NEON; the intrinsics access registers only.
    bias.map(|bias| unsafe {
        let zero = vdupq_n_s32(0);
        [vzip1q_s32(bias, zero), vzip2q_s32(bias, zero)]
    })
}

/// Defines a function for tiles of `$count` rows.
macro_rules! tile_of {
    ($name:ident, $count:tt, $($row:ident = $nth:literal),*) => {
        /// In assembly, because the compiler does not keep the sums in registers.
        ///
        /// v0 to v15 are sums, four per row: each holds two columns, over the first and second halves of every [`KR`]
        /// depths. v16 to v23 hold the weights of up to four steps, eight columns each; v24 to v27 a row's depths of each
        /// step, repeated for every column; v28 to v31 products. Sums start from `start`, which [`spread`] makes, and are passed
        /// to `take` in registers. The sums of rows that are not computed are unspecified.
        ///
        /// # Safety
        /// For a function `tile_of_N`, `rows` points to N rows of `depth` values; `panel` points to depth × NR weights and
        /// their metadata; `depth` is a multiple of KR.
        #[inline(always)]
        unsafe fn $name(
            depth: usize,
            rows: *const i8,
            panel: *const i8,
            start: [[int32x4_t; 2]; 2],
            take: impl FnOnce(Sums),
        ) {
            let (s0, s1, s2, s3): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
            let (s4, s5, s6, s7): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
            // SAFETY: whole groups come first, then the rest of one, each with its byte of metadata. Rows, weights and metadata
            // are read once each, within what the caller promised, and nothing is written.
            unsafe {
                asm!(
                    begin!($count),
                    "cbz {groups}, 5f",
                    // A whole group, with as many products per 16-bit sum as its metadata allows.
                    "2:",
                    "ldrb {products:w}, [{metadata}], #1",
                    "tbz {products:w}, #2, 3f",
                    "ldp q16, q17, [{weights}], #128",
                    "ldp q18, q19, [{weights}, #-96]",
                    "ldp q20, q21, [{weights}, #-64]",
                    "ldp q22, q23, [{weights}, #-32]",
                    for_rows!(four, $count),
                    "subs {groups}, {groups}, #1",
                    "b.ne 2b",
                    "b 5f",
                    "3:",
                    "tbz {products:w}, #1, 4f",
                    "ldp q16, q17, [{weights}], #128",
                    "ldp q18, q19, [{weights}, #-96]",
                    for_rows!(two, $count),
                    "ldp q16, q17, [{weights}, #-64]",
                    "ldp q18, q19, [{weights}, #-32]",
                    for_rows!(two, $count),
                    "subs {groups}, {groups}, #1",
                    "b.ne 2b",
                    "b 5f",
                    "4:",
                    "ldp q16, q17, [{weights}], #128",
                    for_rows!(one, $count),
                    "ldp q16, q17, [{weights}, #-96]",
                    for_rows!(one, $count),
                    "ldp q16, q17, [{weights}, #-64]",
                    for_rows!(one, $count),
                    "ldp q16, q17, [{weights}, #-32]",
                    for_rows!(one, $count),
                    "subs {groups}, {groups}, #1",
                    "b.ne 2b",
                    // Up to three steps are left: all together, or two and one, or one by one.
                    "5:",
                    "cbz {left}, 8f",
                    "tbz {left}, #1, 7f",
                    "ldrb {products:w}, [{metadata}]",
                    "tbz {products:w}, #1, 7f",
                    "tbz {left}, #0, 6f",
                    "tbz {products:w}, #2, 6f",
                    "ldp q16, q17, [{weights}]",
                    "ldp q18, q19, [{weights}, #32]",
                    "ldp q20, q21, [{weights}, #64]",
                    for_rows!(three, $count),
                    "b 8f",
                    "6:",
                    "ldp q16, q17, [{weights}], #64",
                    "ldp q18, q19, [{weights}, #-32]",
                    for_rows!(two, $count),
                    "tbz {left}, #0, 8f",
                    "mov {left}, #1",
                    "7:",
                    "ldp q16, q17, [{weights}], #32",
                    for_rows!(one, $count),
                    "subs {left}, {left}, #1",
                    "b.ne 7b",
                    "8:",
                    end!($count),
                    $($row = inout(reg) rows.add($nth * depth) => _,)*
                    weights = inout(reg) panel => _,
                    metadata = inout(reg) panel.add(depth * NR) => _,
                    groups = inout(reg) depth / (GROUP * KR) => _,
                    left = inout(reg) depth / KR % GROUP => _,
                    products = out(reg) _,
                    inout("v0") start[0][0] => s0, inout("v1") start[0][1] => s1,
                    inout("v2") start[1][0] => s2, inout("v3") start[1][1] => s3,
                    out("v4") s4, out("v5") s5, out("v6") s6, out("v7") s7,
                    out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _,
                    out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
                    out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _,
                    out("v29") _, out("v30") _, out("v31") _,
                    options(pure, readonly, nostack),
                );
            }
            take([[s0, s1], [s2, s3], [s4, s5], [s6, s7]]);
        }
    };
}

tile_of!(tile_of_4, 4, row0 = 0, row1 = 1, row2 = 2, row3 = 3);
tile_of!(tile_of_2, 2, row0 = 0, row1 = 1);
tile_of!(tile_of_1, 1, row0 = 0);

/// # Safety
/// As for [`tile_of_4`]; `acc` points to MR × NR values.
pub unsafe fn accumulate_tile(depth: usize, rows: *const i8, panel: *const i8, acc: *mut i32) {
    // SAFETY: every aarch64 processor has NEON; the caller promises the rest.
    unsafe {
        let start = spread([vdupq_n_s32(0); 2]);
        tile_of_4(depth, rows, panel, start, |sums| store(&sums, acc));
    }
}

/// # Safety
/// As for [`tile_of_4`], with `tile.rows` rows; `tile.rows` is not 0; bias and factor hold NR values; `out` has room for `tile`.
pub unsafe fn quantized_panel(
    depth: usize,
    mut rows: *const i8,
    panel: *const i8,
    tile: OutputTile,
    params: &Requantization,
    mut out: *mut i8,
) {
    let OutputTile { columns, stride, .. } = tile;
    // SAFETY: every aarch64 processor has NEON; exactly `tile.rows` rows are read and written, and the caller promises those.
    unsafe {
        let scale = Scale::load(params);
        let start = spread(scale.bias);
        for _ in 0..tile.rows / MR {
            tile_of_4(depth, rows, panel, start, |sums| {
                write_rows::<4>(&sums, &scale, columns, stride, out);
            });
            rows = rows.wrapping_add(MR * depth);
            out = out.wrapping_add(MR * stride);
        }
        if tile.rows & 2 != 0 {
            tile_of_2(depth, rows, panel, start, |sums| {
                write_rows::<2>(&sums, &scale, columns, stride, out);
            });
            rows = rows.wrapping_add(2 * depth);
            out = out.wrapping_add(2 * stride);
        }
        if tile.rows & 1 != 0 {
            tile_of_1(depth, rows, panel, start, |sums| {
                write_rows::<1>(&sums, &scale, columns, stride, out);
            });
        }
    }
}
