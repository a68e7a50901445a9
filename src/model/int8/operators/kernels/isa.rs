//! Which instruction sets there are, and which of them this processor has.

/// An instruction set that has kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust: the definition that all others must equal. Slow.
    Reference,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    #[cfg(target_arch = "aarch64")]
    NeonI8mm,
}

/// `with_microkernels!(isa, M => expression)` evaluates the expression with `M` bound to the [`Microkernels`] of `isa`.
///
/// [`Microkernels`]: super::Microkernels
#[macro_export]
macro_rules! with_microkernels {
    ($isa:expr, $microkernels:ident => $value:expr) => {{
        use $crate::model::int8::operators::kernels;
        match $isa {
            kernels::Isa::Reference => {
                type $microkernels = kernels::reference::Reference;
                $value
            }
            #[cfg(target_arch = "x86_64")]
            kernels::Isa::Avx2 => {
                type $microkernels = kernels::avx2::Avx2;
                $value
            }
            #[cfg(target_arch = "x86_64")]
            kernels::Isa::AvxVnni => {
                type $microkernels = kernels::avx_vnni::AvxVnni<false>;
                $value
            }
            #[cfg(target_arch = "x86_64")]
            kernels::Isa::Avx512Vnni => {
                type $microkernels = kernels::avx512_vnni::Avx512Vnni;
                $value
            }
            #[cfg(target_arch = "aarch64")]
            kernels::Isa::Neon => {
                type $microkernels = kernels::neon::Neon;
                $value
            }
            #[cfg(target_arch = "aarch64")]
            kernels::Isa::NeonDot => {
                type $microkernels = kernels::neon_dot::NeonDot;
                $value
            }
            #[cfg(target_arch = "aarch64")]
            kernels::Isa::NeonI8mm => {
                type $microkernels = kernels::neon_i8mm::NeonI8mm;
                $value
            }
        }
    }};
}

pub(crate) use with_microkernels;

impl Isa {
    /// All instruction sets that this processor has, fastest first. The last one is [`Isa::Reference`].
    pub fn available() -> Vec<Isa> {
        let mut isas = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
            {
                isas.push(Isa::Avx512Vnni);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni") {
                isas.push(Isa::AvxVnni);
            }
            if is_x86_feature_detected!("avx2") {
                isas.push(Isa::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if std::arch::is_aarch64_feature_detected!("i8mm") {
                isas.push(Isa::NeonI8mm);
            }
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                isas.push(Isa::NeonDot);
            }
            isas.push(Isa::Neon);
        }
        isas.push(Isa::Reference);
        isas
    }

    /// The fastest one; `None` if there is only the reference, which is slower than f32 in tract.
    pub fn fastest() -> Option<Isa> {
        Isa::available().into_iter().find(|isa| *isa != Isa::Reference)
    }

    pub fn name(self) -> &'static str {
        match self {
            Isa::Reference => "reference",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => "neon-dot",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => "neon-i8mm",
        }
    }

    /// The instruction set of that name; `None` if this processor lacks it.
    pub fn named(name: &str) -> Option<Isa> {
        Isa::available().into_iter().find(|isa| isa.name() == name)
    }
}
