//! Products of up to four rows with eight columns.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{GROUP, KU, MR, NR};

/// Products of step `$step` of a group with one row, for its four pairs of columns, by `smull` or `smlal`.
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

/// Adds the products to a row's sums.
macro_rules! add {
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

/// One to four steps, whose products meet in 16 bits: loads of the weights come before, then `$row` for each row.
macro_rules! steps {
    ($row:ident, 1) => {
        $row!("row0", "0", "1", "2", "3")
    };
    ($row:ident, 2) => {
        concat!(steps!($row, 1), $row!("row1", "4", "5", "6", "7"))
    };
    ($row:ident, 4) => {
        concat!(
            steps!($row, 2),
            $row!("row2", "8", "9", "10", "11"),
            $row!("row3", "12", "13", "14", "15"),
        )
    };
}

macro_rules! one {
    ($row:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "ld1r {{v24.4s}}, [{",
            $row,
            "}], #4\n",
            products!("smull", "16", "17", "24"),
            add!($a, $b, $c, $d),
        )
    };
}

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
            add!($a, $b, $c, $d),
        )
    };
}

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
            add!($a, $b, $c, $d),
        )
    };
}

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
            add!($a, $b, $c, $d),
        )
    };
}

/// Every row's sums start from those given for the first.
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

/// Adds the halves of each column's sum.
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
pub type Sums = [[int32x4_t; 2]; MR];

/// What sums of two columns each, in halves, start from to hold `bias`.
#[inline(always)]
pub fn spread(bias: [int32x4_t; 2]) -> [[int32x4_t; 2]; 2] {
    // SAFETY: every aarch64 processor has NEON.
    bias.map(|bias| unsafe {
        let zero = vdupq_n_s32(0);
        [vzip1q_s32(bias, zero), vzip2q_s32(bias, zero)]
    })
}

/// A function for tiles of `$count` rows.
macro_rules! tile_of {
    ($name:ident, $count:tt, $($row:ident = $nth:literal),*) => {
        /// In assembly, since the compiler does not keep the sums in registers.
        ///
        /// v0 to v15 are sums, four for each row: of two columns each, over the first and second halves of every [`KU`]
        /// depths. v16 to v23 hold the weights of up to four steps, eight columns each; v24 to v27 a row's depths of each
        /// step, again for every column; v28 to v31 products. Sums start from `start`, as [`spread`] gives it, and go to
        /// `take` while they are in registers; those of rows that are not computed mean nothing.
        ///
        /// # Safety
        /// `rows` points to as many rows of `depth` values as the name says, `panel` to depth × NR weights and their notes;
        /// `depth` is a multiple of KU.
        #[inline(always)]
        pub unsafe fn $name(
            depth: usize,
            rows: *const i8,
            panel: *const i8,
            start: [[int32x4_t; 2]; 2],
            take: impl FnOnce(Sums),
        ) {
            let (s0, s1, s2, s3): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
            let (s4, s5, s6, s7): (int32x4_t, int32x4_t, int32x4_t, int32x4_t);
            // SAFETY: whole groups, then what is left of one, each with its note: rows, weights and notes are read once
            // each, from the first to the last that the caller promised, and nothing is written.
            unsafe {
                asm!(
                    begin!($count),
                    "cbz {groups}, 5f",
                    // A whole group, as its note says.
                    "2:",
                    "ldrb {note:w}, [{notes}], #1",
                    "tbz {note:w}, #2, 3f",
                    "ldp q16, q17, [{weights}], #128",
                    "ldp q18, q19, [{weights}, #-96]",
                    "ldp q20, q21, [{weights}, #-64]",
                    "ldp q22, q23, [{weights}, #-32]",
                    steps!(four, $count),
                    "subs {groups}, {groups}, #1",
                    "b.ne 2b",
                    "b 5f",
                    "3:",
                    "tbz {note:w}, #1, 4f",
                    "ldp q16, q17, [{weights}], #128",
                    "ldp q18, q19, [{weights}, #-96]",
                    steps!(two, $count),
                    "ldp q16, q17, [{weights}, #-64]",
                    "ldp q18, q19, [{weights}, #-32]",
                    steps!(two, $count),
                    "subs {groups}, {groups}, #1",
                    "b.ne 2b",
                    "b 5f",
                    "4:",
                    "ldp q16, q17, [{weights}], #128",
                    steps!(one, $count),
                    "ldp q16, q17, [{weights}, #-96]",
                    steps!(one, $count),
                    "ldp q16, q17, [{weights}, #-64]",
                    steps!(one, $count),
                    "ldp q16, q17, [{weights}, #-32]",
                    steps!(one, $count),
                    "subs {groups}, {groups}, #1",
                    "b.ne 2b",
                    // Up to three steps are left: all at once, or two and one, or one by one.
                    "5:",
                    "cbz {left}, 8f",
                    "tbz {left}, #1, 7f",
                    "ldrb {note:w}, [{notes}]",
                    "tbz {note:w}, #1, 7f",
                    "tbz {left}, #0, 6f",
                    "tbz {note:w}, #2, 6f",
                    "ldp q16, q17, [{weights}]",
                    "ldp q18, q19, [{weights}, #32]",
                    "ldp q20, q21, [{weights}, #64]",
                    steps!(three, $count),
                    "b 8f",
                    "6:",
                    "ldp q16, q17, [{weights}], #64",
                    "ldp q18, q19, [{weights}, #-32]",
                    steps!(two, $count),
                    "tbz {left}, #0, 8f",
                    "mov {left}, #1",
                    "7:",
                    "ldp q16, q17, [{weights}], #32",
                    steps!(one, $count),
                    "subs {left}, {left}, #1",
                    "b.ne 7b",
                    "8:",
                    end!($count),
                    $($row = inout(reg) rows.add($nth * depth) => _,)*
                    weights = inout(reg) panel => _,
                    notes = inout(reg) panel.add(depth * NR) => _,
                    groups = inout(reg) depth / (GROUP * KU) => _,
                    left = inout(reg) depth / KU % GROUP => _,
                    note = out(reg) _,
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
