//! Tables of 256 entries.

use std::arch::aarch64::*;

/// [`Microkernels::look_up`](super::super::Microkernels::look_up). TBL reads one of 64 entries, and gives zero for an index beyond
/// them.
pub fn look_up(table: &[i8; 256], values: &[i8], out: &mut [i8]) {
    let (from, rest) = values.as_chunks::<16>();
    let (to, last) = out.as_chunks_mut::<16>();
    // SAFETY: every aarch64 processor has NEON; the table has 4 × 64 entries, each chunk sixteen values.
    unsafe {
        let quarter: [int8x16x4_t; 4] = std::array::from_fn(|i| vld1q_s8_x4(table.as_ptr().add(64 * i)));
        for (from, to) in from.iter().zip(to) {
            let index = vreinterpretq_u8_s8(vld1q_s8(from.as_ptr()));
            let beyond = |entries: u8| vsubq_u8(index, vdupq_n_u8(entries));
            let low = vorrq_s8(vqtbl4q_s8(quarter[0], index), vqtbl4q_s8(quarter[1], beyond(64)));
            let high = vorrq_s8(vqtbl4q_s8(quarter[2], beyond(128)), vqtbl4q_s8(quarter[3], beyond(192)));
            vst1q_s8(to.as_mut_ptr(), vorrq_s8(low, high));
        }
    }
    for (to, from) in last.iter_mut().zip(rest) {
        *to = table[usize::from(*from as u8)];
    }
}
