//! Products of four rows with eight columns.

use std::arch::asm;

use super::{GROUP, KU, NR};

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

/// One to four steps, whose products meet in 16 bits: loads of the weights, then `$row` for each row.
macro_rules! steps {
    ($row:ident) => {
        concat!(
            $row!("row0", "0", "1", "2", "3"),
            $row!("row1", "4", "5", "6", "7"),
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

/// In assembly, since the compiler does not keep the sums in registers.
///
/// v0 to v15 are sums, four for each row: of two columns each, over the first and second halves of every [`KU`] depths.
/// v16 to v23 hold the weights of up to four steps, eight columns each; v24 to v27 a row's depths of each step, again for
/// every column; v28 to v31 products.
///
/// # Safety
/// `rows` points to MR × depth values, `panel` to depth × NR and their notes, `acc` to MR × NR; `depth` is a multiple of
/// KU.
#[target_feature(enable = "neon")]
pub unsafe fn tile(depth: usize, rows: *const i8, panel: *const i8, acc: *mut i32) {
    // SAFETY: whole groups, then what is left of one, each with its note: rows, weights and notes are read once each, from
    // the first to the last that the caller promised, and MR × NR sums are written.
    unsafe {
        asm!(
            "movi v0.4s, #0", "movi v1.4s, #0", "movi v2.4s, #0", "movi v3.4s, #0",
            "movi v4.4s, #0", "movi v5.4s, #0", "movi v6.4s, #0", "movi v7.4s, #0",
            "movi v8.4s, #0", "movi v9.4s, #0", "movi v10.4s, #0", "movi v11.4s, #0",
            "movi v12.4s, #0", "movi v13.4s, #0", "movi v14.4s, #0", "movi v15.4s, #0",
            "cbz {groups}, 5f",
            // A whole group, as its note says.
            "2:",
            "ldrb {note:w}, [{notes}], #1",
            "tbz {note:w}, #2, 3f",
            "ldp q16, q17, [{weights}], #128",
            "ldp q18, q19, [{weights}, #-96]",
            "ldp q20, q21, [{weights}, #-64]",
            "ldp q22, q23, [{weights}, #-32]",
            steps!(four),
            "subs {groups}, {groups}, #1",
            "b.ne 2b",
            "b 5f",
            "3:",
            "tbz {note:w}, #1, 4f",
            "ldp q16, q17, [{weights}], #128",
            "ldp q18, q19, [{weights}, #-96]",
            steps!(two),
            "ldp q16, q17, [{weights}, #-64]",
            "ldp q18, q19, [{weights}, #-32]",
            steps!(two),
            "subs {groups}, {groups}, #1",
            "b.ne 2b",
            "b 5f",
            "4:",
            "ldp q16, q17, [{weights}], #128",
            steps!(one),
            "ldp q16, q17, [{weights}, #-96]",
            steps!(one),
            "ldp q16, q17, [{weights}, #-64]",
            steps!(one),
            "ldp q16, q17, [{weights}, #-32]",
            steps!(one),
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
            steps!(three),
            "b 8f",
            "6:",
            "ldp q16, q17, [{weights}], #64",
            "ldp q18, q19, [{weights}, #-32]",
            steps!(two),
            "tbz {left}, #0, 8f",
            "mov {left}, #1",
            "7:",
            "ldp q16, q17, [{weights}], #32",
            steps!(one),
            "subs {left}, {left}, #1",
            "b.ne 7b",
            // The halves of each column's sum.
            "8:",
            "addp v0.4s, v0.4s, v1.4s",
            "addp v1.4s, v2.4s, v3.4s",
            "addp v2.4s, v4.4s, v5.4s",
            "addp v3.4s, v6.4s, v7.4s",
            "addp v4.4s, v8.4s, v9.4s",
            "addp v5.4s, v10.4s, v11.4s",
            "addp v6.4s, v12.4s, v13.4s",
            "addp v7.4s, v14.4s, v15.4s",
            "stp q0, q1, [{acc}]",
            "stp q2, q3, [{acc}, #32]",
            "stp q4, q5, [{acc}, #64]",
            "stp q6, q7, [{acc}, #96]",
            row0 = inout(reg) rows => _,
            row1 = inout(reg) rows.add(depth) => _,
            row2 = inout(reg) rows.add(2 * depth) => _,
            row3 = inout(reg) rows.add(3 * depth) => _,
            weights = inout(reg) panel => _,
            notes = inout(reg) panel.add(depth * NR) => _,
            groups = inout(reg) depth / (GROUP * KU) => _,
            left = inout(reg) depth / KU % GROUP => _,
            note = out(reg) _,
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
