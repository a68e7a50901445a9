//! The inner loops, one family of them for each kind of processor.
//!
//! A [`Family`] computes tiles of matrix products, depthwise taps and requantization; everything around them (packing,
//! borders, threads of the loop) is written once, for all families, in the modules above.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "aarch64")]
pub mod neon;
#[cfg(target_arch = "aarch64")]
pub mod neon_dot;
pub mod peak;
pub mod reference;
#[cfg(target_arch = "x86_64")]
pub mod vnni;

use super::arithmetic::Bounds;
use super::gemm::{Scratch, Scratches};
use super::pointwise::Pairs;

/// The largest tile of any family, in accumulators.
pub const MAX_TILE: usize = 384;
/// The most channels any family requantizes at once.
pub const MAX_NR: usize = 32;

/// Kernels for one kind of processor. Implementations are only reachable through [`Kind::best`] and [`Kind::named`], which
/// know what the processor has.
pub trait Family {
    /// How activations lie in a packed row: as s8, or widened to s16 once instead of at every use.
    type Lane: Copy + Default + From<i8> + Send;
    /// The family for rows without negative values, such as a ReLU leaves: [`Family`] itself, or one that gains by knowing.
    type NonNegative: Family;
    /// Rows (pixels) and columns (output channels) of a tile.
    const MR: usize;
    const NR: usize;
    /// Consecutive depths that one column keeps together in packed weights. Depths are padded to it.
    const KU: usize;

    /// Bytes the family keeps behind the weights of a panel.
    fn notes(_depth: usize) -> usize {
        0
    }

    /// Takes note of what there is to know about a panel's weights, once they are all in.
    fn note(_depth: usize, _panel: &mut [i8]) {}

    /// Products of `MR` packed rows with the first `columns` of one panel of weights: `acc[r * NR + c] = Σ row r × column c`.
    /// What the other columns of `acc` hold afterwards does not matter.
    ///
    /// `rows` holds `MR` rows of `depth` lanes; `panel` holds `depth * NR` weights as [`Family::KU`] says, and what was
    /// noted about them; `depth` is a multiple of `KU`; `acc` holds `MR * NR`.
    fn tile(depth: usize, columns: usize, rows: &[Self::Lane], panel: &[i8], acc: &mut [i32]);

    /// `out[r * stride + c] = bounds.round((acc[r * NR + c] + bias[c]) as f32 * factor[c])` for the wanted rows and columns
    /// of a tile; `bias` and `factor` hold `NR` each.
    fn requantize_tile(acc: &[i32], wanted: Wanted, bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]);

    /// [`Family::tile`] and [`Family::requantize_tile`] in one, for families that need not put the sums down in between.
    fn quantized_tile(
        depth: usize,
        rows: &[Self::Lane],
        panel: &[i8],
        acc: &mut [i32],
        wanted: Wanted,
        to: &Requantization,
        out: &mut [i8],
    ) {
        Self::tile(depth, wanted.columns, rows, panel, acc);
        Self::requantize_tile(acc, wanted, to.bias, to.factor, to.bounds, out);
    }

    /// [`Family::quantized_tile`] for `wanted.rows` rows, any number: a tile after the other. `rows` holds at least
    /// [`Family::reach`] of them.
    fn quantized_panel(
        depth: usize,
        rows: &[Self::Lane],
        panel: &[i8],
        acc: &mut [i32],
        wanted: Wanted,
        to: &Requantization,
        out: &mut [i8],
    ) {
        let tiles = rows.chunks_exact(Self::MR * depth);
        for (tile, first) in tiles.zip((0..wanted.rows).step_by(Self::MR)) {
            let rows = Self::MR.min(wanted.rows - first);
            let out = &mut out[first * wanted.stride..];
            Self::quantized_tile(depth, tile, panel, acc, Wanted { rows, ..wanted }, to, out);
        }
    }

    /// How many rows [`Family::quantized_panel`] reads where so many are wanted: whole tiles, or only those.
    fn reach(rows: usize) -> usize {
        rows.next_multiple_of(Self::MR)
    }

    /// Rows that lie one after the other, as packed ones, if that is no other form.
    fn as_packed(_rows: &[i8]) -> Option<&[Self::Lane]> {
        None
    }

    /// The room for this family's packed rows.
    fn scratch(scratches: &mut Scratches) -> &mut Scratch<Self::Lane>;

    /// Packs depthwise weights, `[tap][channel]`, as [`Family::depthwise`] wants them.
    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8>;

    /// Pixels of a depthwise convolution, side by side in one row. `out` holds all their channels.
    fn depthwise(row: &DepthwiseRow, out: &mut [i8]);

    /// `out[i] = table[values[i] as u8]`.
    fn look_up(table: &[i8; 256], values: &[i8], out: &mut [i8]) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = table[usize::from(*value as u8)];
        }
    }

    /// A sum or product of two tensors.
    fn pairwise(pairs: Pairs) {
        Self::compiled(pairs);
    }

    /// Runs `work` compiled for this family's processor, so that plain loops in it are vectorized as far as it can.
    fn compiled<W: Work>(work: W);
}

/// What is wanted of a tile, and how far apart its rows lie in the output.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub rows: usize,
    pub columns: usize,
    pub stride: usize,
}

/// What brings a panel's sums back to eight bits, `NR` values of each.
#[derive(Debug, Clone, Copy)]
pub struct Requantization<'a> {
    pub bias: &'a [i32],
    pub factor: &'a [f32],
    pub bounds: Bounds,
}

/// Neighbouring pixels of a depthwise convolution that have all their taps.
#[derive(Debug, Clone, Copy)]
pub struct DepthwiseRow<'a> {
    /// What lies under each tap of the first pixel and, after it, of the others.
    pub taps: &'a [&'a [i8]],
    /// From what is under a tap of one pixel to what is under it of the next.
    pub step: usize,
    pub channels: usize,
    /// As packed by the family.
    pub weights: &'a [i8],
    /// For each channel, and padded to a multiple of [`MAX_NR`].
    pub bias: &'a [i32],
    pub factor: &'a [f32],
    pub bounds: Bounds,
}

impl DepthwiseRow<'_> {
    /// Panics unless all of it is as long as kernels take for granted when they write `out`.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn check(&self, out: &[i8]) {
        let pixels = out.len() / self.channels;
        assert!(pixels > 0 && out.len() == pixels * self.channels);
        let reach = (pixels - 1) * self.step + self.channels;
        assert!(self.taps.iter().all(|tap| tap.len() >= reach));
        assert!(self.bias.len() >= self.channels.next_multiple_of(MAX_NR));
        assert!(self.factor.len() >= self.channels.next_multiple_of(MAX_NR));
    }

    /// Channel `c` of pixel `pixel`, by the definition; `weights` are `[tap][channel]`.
    fn one(&self, weights: &[i8], pixel: usize, c: usize) -> i8 {
        let taps = self.taps.iter().enumerate();
        let products =
            taps.map(|(t, tap)| i32::from(tap[pixel * self.step + c]) * i32::from(weights[t * self.channels + c]));
        let sum = products.sum::<i32>().wrapping_add(self.bias[c]);
        self.bounds.round(sum as f32 * self.factor[c])
    }
}

/// Loops that the compiler vectorizes. `run` must be `#[inline(always)]`: only what is inlined into a function for a
/// processor is compiled for it, which a closure need not be.
pub trait Work {
    fn run(self);
}

/// Which family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Plain Rust: the definition the others are held to. Slow.
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
}

/// `with_family!(kind, F => expression)`: the expression with `F` the family of that kind.
#[macro_export]
macro_rules! with_family {
    ($kind:expr, $family:ident => $value:expr) => {{
        use $crate::model::int8::kernels;
        match $kind {
            kernels::Kind::Reference => {
                type $family = kernels::reference::Reference;
                $value
            }
            #[cfg(target_arch = "x86_64")]
            kernels::Kind::Avx2 => {
                type $family = kernels::avx2::Avx2;
                $value
            }
            #[cfg(target_arch = "x86_64")]
            kernels::Kind::AvxVnni => {
                type $family = kernels::vnni::AvxVnni<false>;
                $value
            }
            #[cfg(target_arch = "x86_64")]
            kernels::Kind::Avx512Vnni => {
                type $family = kernels::vnni::Avx512Vnni;
                $value
            }
            #[cfg(target_arch = "aarch64")]
            kernels::Kind::Neon => {
                type $family = kernels::neon::Neon;
                $value
            }
            #[cfg(target_arch = "aarch64")]
            kernels::Kind::NeonDot => {
                type $family = kernels::neon_dot::NeonDot;
                $value
            }
        }
    }};
}
pub(super) use with_family;

impl Kind {
    /// All families this processor can run, best first.
    pub fn available() -> Vec<Kind> {
        let mut kinds = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
            {
                kinds.push(Kind::Avx512Vnni);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni") {
                kinds.push(Kind::AvxVnni);
            }
            if is_x86_feature_detected!("avx2") {
                kinds.push(Kind::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                kinds.push(Kind::NeonDot);
            }
            kinds.push(Kind::Neon);
        }
        kinds.push(Kind::Reference);
        kinds
    }

    /// The fastest; `None` where there is only the reference, which is slower than f32 elsewhere.
    pub fn best() -> Option<Kind> {
        Kind::available().into_iter().find(|kind| *kind != Kind::Reference)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Reference => "reference",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => "neon-dot",
        }
    }

    /// The family of that name, if this processor can run it.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::available().into_iter().find(|kind| kind.name() == name)
    }
}
