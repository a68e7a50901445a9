//! The peak throughput of this processor, to compare the kernels with.

use std::time::Instant;

/// The processor's fastest way to multiply 8-bit values and add the products in 32 bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    pub instructions: &'static str,
    /// Multiply-accumulates per second of one thread.
    pub macs_per_s: f64,
}

/// A loop over these instructions on registers only. No instruction waits for memory or for the one before it.
struct Loop {
    instructions: &'static str,
    /// Multiply-accumulates of one turn.
    macs: u64,
    /// Runs the given number of turns.
    run: fn(u64),
}

/// Turns of one measurement: about a millisecond on any processor.
const TURNS: u64 = 100_000;
/// The shortest of this many measurements counts, because other load only makes them longer.
const TRIES: usize = 30;

/// Measures for some tens of milliseconds. `None` if the processor has no kernels but the reference.
pub fn measure() -> Option<Peak> {
    let Loop {
        instructions,
        macs,
        run,
    } = best()?;
    let took = |_| {
        let started = Instant::now();
        run(TURNS);
        started.elapsed().as_secs_f64()
    };
    let shortest = (0..TRIES).map(took).fold(f64::INFINITY, f64::min);
    let macs_per_s = (macs * TURNS) as f64 / shortest;
    Some(Peak {
        instructions,
        macs_per_s,
    })
}

#[cfg(target_arch = "x86_64")]
fn best() -> Option<Loop> {
    if is_x86_feature_detected!("avx512vnni") {
        return Some(Loop {
            instructions: "vpdpbusd, 512 bits",
            macs: 12 * 64,
            // SAFETY: the feature was detected.
            run: |turns| unsafe { x86::dot_products_512(turns) },
        });
    }
    if is_x86_feature_detected!("avxvnni") {
        return Some(Loop {
            instructions: "vpdpbusd, 256 bits",
            macs: 12 * 32,
            // SAFETY: the feature was detected.
            run: |turns| unsafe { x86::dot_products_256(turns) },
        });
    }
    is_x86_feature_detected!("avx2").then_some(Loop {
        instructions: "vpmaddubsw, four to a vpmaddwd, 256 bits",
        macs: 3 * 128,
        // SAFETY: the feature was detected.
        run: |turns| unsafe { x86::pairwise_multiply_add(turns) },
    })
}

#[cfg(target_arch = "aarch64")]
fn best() -> Option<Loop> {
    if std::arch::is_aarch64_feature_detected!("i8mm") {
        return Some(Loop {
            instructions: "smmla",
            macs: 12 * 32,
            // SAFETY: the feature was detected.
            run: |turns| unsafe { arm::matrix_products(turns) },
        });
    }
    if std::arch::is_aarch64_feature_detected!("dotprod") {
        return Some(Loop {
            instructions: "sdot",
            macs: 12 * 16,
            // SAFETY: the feature was detected.
            run: |turns| unsafe { arm::dot_products(turns) },
        });
    }
    Some(Loop {
        instructions: "smlal and sadalp",
        macs: 4 * 16,
        // SAFETY: every aarch64 processor has NEON.
        run: |turns| unsafe { arm::pairwise_multiply_add(turns) },
    })
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn best() -> Option<Loop> {
    None
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    /// # Safety
    /// The processor has AVX-512 VNNI.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub unsafe fn dot_products_512(turns: u64) {
        // SAFETY: the assembly uses only the registers it names.
        unsafe {
            asm!(
                "2:",
                "vpdpbusd zmm0, zmm12, zmm13",
                "vpdpbusd zmm1, zmm12, zmm13",
                "vpdpbusd zmm2, zmm12, zmm13",
                "vpdpbusd zmm3, zmm12, zmm13",
                "vpdpbusd zmm4, zmm12, zmm13",
                "vpdpbusd zmm5, zmm12, zmm13",
                "vpdpbusd zmm6, zmm12, zmm13",
                "vpdpbusd zmm7, zmm12, zmm13",
                "vpdpbusd zmm8, zmm12, zmm13",
                "vpdpbusd zmm9, zmm12, zmm13",
                "vpdpbusd zmm10, zmm12, zmm13",
                "vpdpbusd zmm11, zmm12, zmm13",
                "sub {turns}, 1",
                "jnz 2b",
                turns = inout(reg) turns => _,
                out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
                out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                options(nomem, nostack),
            );
        }
    }

    /// # Safety
    /// The processor has AVX-VNNI.
    #[target_feature(enable = "avx2,avxvnni")]
    pub unsafe fn dot_products_256(turns: u64) {
        // SAFETY: the assembly uses only the registers it names.
        unsafe {
            asm!(
                "2:",
                "{{vex}} vpdpbusd ymm0, ymm12, ymm13",
                "{{vex}} vpdpbusd ymm1, ymm12, ymm13",
                "{{vex}} vpdpbusd ymm2, ymm12, ymm13",
                "{{vex}} vpdpbusd ymm3, ymm12, ymm13",
                "{{vex}} vpdpbusd ymm4, ymm12, ymm13",
                "{{vex}} vpdpbusd ymm5, ymm12, ymm13",
                "{{vex}} vpdpbusd ymm6, ymm12, ymm13",
                "{{vex}} vpdpbusd ymm7, ymm12, ymm13",
                "{{vex}} vpdpbusd ymm8, ymm12, ymm13",
                "{{vex}} vpdpbusd ymm9, ymm12, ymm13",
                "{{vex}} vpdpbusd ymm10, ymm12, ymm13",
                "{{vex}} vpdpbusd ymm11, ymm12, ymm13",
                "sub {turns}, 1",
                "jnz 2b",
                turns = inout(reg) turns => _,
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
                out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                options(nomem, nostack),
            );
        }
    }

    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub unsafe fn pairwise_multiply_add(turns: u64) {
        // SAFETY: the assembly uses only the registers it names.
        unsafe {
            asm!(
                "2:",
                "vpmaddubsw ymm3, ymm15, ymm15",
                "vpmaddubsw ymm7, ymm15, ymm15",
                "vpmaddubsw ymm11, ymm15, ymm15",
                "vpmaddubsw ymm4, ymm15, ymm15",
                "vpmaddubsw ymm8, ymm15, ymm15",
                "vpmaddubsw ymm12, ymm15, ymm15",
                "vpmaddubsw ymm5, ymm15, ymm15",
                "vpmaddubsw ymm9, ymm15, ymm15",
                "vpmaddubsw ymm13, ymm15, ymm15",
                "vpmaddubsw ymm6, ymm15, ymm15",
                "vpmaddubsw ymm10, ymm15, ymm15",
                "vpmaddubsw ymm14, ymm15, ymm15",
                "vpaddw ymm3, ymm3, ymm4",
                "vpaddw ymm7, ymm7, ymm8",
                "vpaddw ymm11, ymm11, ymm12",
                "vpaddw ymm5, ymm5, ymm6",
                "vpaddw ymm9, ymm9, ymm10",
                "vpaddw ymm13, ymm13, ymm14",
                "vpaddw ymm3, ymm3, ymm5",
                "vpaddw ymm7, ymm7, ymm9",
                "vpaddw ymm11, ymm11, ymm13",
                "vpmaddwd ymm3, ymm3, ymm15",
                "vpmaddwd ymm7, ymm7, ymm15",
                "vpmaddwd ymm11, ymm11, ymm15",
                "vpaddd ymm0, ymm0, ymm3",
                "vpaddd ymm1, ymm1, ymm7",
                "vpaddd ymm2, ymm2, ymm11",
                "sub {turns}, 1",
                "jnz 2b",
                turns = inout(reg) turns => _,
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
                out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                out("ymm12") _, out("ymm13") _, out("ymm14") _,
                options(nomem, nostack),
            );
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::asm;

    /// # Safety
    /// The processor has 8-bit matrix products.
    #[target_feature(enable = "neon,i8mm")]
    pub unsafe fn matrix_products(turns: u64) {
        // SAFETY: the assembly uses only the registers it names.
        unsafe {
            asm!(
                "2:",
                "smmla v0.4s, v16.16b, v17.16b",
                "smmla v1.4s, v16.16b, v17.16b",
                "smmla v2.4s, v16.16b, v17.16b",
                "smmla v3.4s, v16.16b, v17.16b",
                "smmla v4.4s, v16.16b, v17.16b",
                "smmla v5.4s, v16.16b, v17.16b",
                "smmla v6.4s, v16.16b, v17.16b",
                "smmla v7.4s, v16.16b, v17.16b",
                "smmla v18.4s, v16.16b, v17.16b",
                "smmla v19.4s, v16.16b, v17.16b",
                "smmla v20.4s, v16.16b, v17.16b",
                "smmla v21.4s, v16.16b, v17.16b",
                "subs {turns}, {turns}, #1",
                "b.ne 2b",
                turns = inout(reg) turns => _,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                out("v18") _, out("v19") _, out("v20") _, out("v21") _,
                options(nomem, nostack),
            );
        }
    }

    /// # Safety
    /// The processor has dot products.
    #[target_feature(enable = "neon,dotprod")]
    pub unsafe fn dot_products(turns: u64) {
        // SAFETY: the assembly uses only the registers it names.
        unsafe {
            asm!(
                "2:",
                "sdot v0.4s, v16.16b, v17.16b",
                "sdot v1.4s, v16.16b, v17.16b",
                "sdot v2.4s, v16.16b, v17.16b",
                "sdot v3.4s, v16.16b, v17.16b",
                "sdot v4.4s, v16.16b, v17.16b",
                "sdot v5.4s, v16.16b, v17.16b",
                "sdot v6.4s, v16.16b, v17.16b",
                "sdot v7.4s, v16.16b, v17.16b",
                "sdot v18.4s, v16.16b, v17.16b",
                "sdot v19.4s, v16.16b, v17.16b",
                "sdot v20.4s, v16.16b, v17.16b",
                "sdot v21.4s, v16.16b, v17.16b",
                "subs {turns}, {turns}, #1",
                "b.ne 2b",
                turns = inout(reg) turns => _,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                out("v18") _, out("v19") _, out("v20") _, out("v21") _,
                options(nomem, nostack),
            );
        }
    }

    /// # Safety
    /// The processor has NEON.
    #[target_feature(enable = "neon")]
    pub unsafe fn pairwise_multiply_add(turns: u64) {
        // SAFETY: the assembly uses only the registers it names.
        unsafe {
            asm!(
                "2:",
                "smull v4.8h, v16.8b, v17.8b",
                "smull v5.8h, v16.8b, v17.8b",
                "smull v6.8h, v16.8b, v17.8b",
                "smull v7.8h, v16.8b, v17.8b",
                "smlal2 v4.8h, v16.16b, v17.16b",
                "smlal2 v5.8h, v16.16b, v17.16b",
                "smlal2 v6.8h, v16.16b, v17.16b",
                "smlal2 v7.8h, v16.16b, v17.16b",
                "sadalp v0.4s, v4.8h",
                "sadalp v1.4s, v5.8h",
                "sadalp v2.4s, v6.8h",
                "sadalp v3.4s, v7.8h",
                "subs {turns}, {turns}, #1",
                "b.ne 2b",
                turns = inout(reg) turns => _,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                options(nomem, nostack),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_processor_with_kernels_has_a_peak() {
        let peak = super::measure();
        let has_kernels = super::super::Isa::fastest().is_some();
        assert_eq!(peak.is_some_and(|peak| peak.macs_per_s > 1e6), has_kernels);
    }
}
