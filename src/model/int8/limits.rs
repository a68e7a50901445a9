//! How large a graph may be.
//!
//! A file may be damaged or made to do harm. So everything that takes memory or time is counted before it is allocated or computed. The
//! limits are far above what a network for a small board needs: ResNet-50 for 224 × 224 values is within all of them.

/// The largest ONNX file.
pub const MAX_FILE_BYTES: usize = 32 << 20;
/// The most memory for a decoded file.
pub const MAX_DECODED_BYTES: usize = 96 << 20;
/// The most nodes of a graph, and the most inputs, constants and outputs.
pub const MAX_NODES: usize = 10_000;
/// The most inputs and outputs of all nodes together.
pub const MAX_LINKS: usize = 8 * MAX_NODES;
/// The most nodes that tract runs. The time of its optimizer grows with the square of this number.
pub const MAX_TRACT_NODES: usize = 1024;
/// The most nodes for which tract moves axes past other operators. That takes memory for each pair of nodes.
pub const MAX_NODES_TO_MOVE_AXES: usize = 256;
/// The most dimensions of a tensor.
pub const MAX_RANK: usize = 8;
/// The most values of one tensor.
pub const MAX_ELEMENTS: usize = 1 << 24;
/// The largest kernel, stride, dilation or pad, and the largest number of groups.
pub const MAX_WINDOW: i64 = 1 << 15;
/// The most multiply-accumulates of one run, or operations that take as long.
pub const MAX_WORK: u64 = 1 << 33;
/// The most operations to compute constants. tract does so several times while it loads a graph.
const MAX_CONSTANT_WORK: u64 = 1 << 27;
/// The most memory for all tensors that tract computes or holds.
const MAX_TRACT_BYTES: usize = 1 << 28;
/// The most memory for the activations of the integer subgraphs.
pub const MAX_ACTIVATION_BYTES: usize = 1 << 27;
/// The most constant values that the importer unpacks or repeats.
pub const MAX_CONSTANTS: usize = 1 << 25;

/// The number of values of a tensor; `None` if it does not fit `usize`.
pub fn elements(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim))
}

/// The number of values of a tensor, if it is within the limits.
pub fn size(dims: &[usize]) -> Option<usize> {
    let size = elements(dims)?;
    (dims.len() <= MAX_RANK && (1..=MAX_ELEMENTS).contains(&size)).then_some(size)
}

/// What tract may still use while it loads the parts of one graph.
#[derive(Debug)]
pub struct Budget {
    bytes: usize,
    work: u64,
    constant_work: u64,
    nodes: usize,
}

/// A limit that a graph exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OverLimit {
    #[error("the shape of its result is not fixed")]
    NotFixed,
    #[error("its result is too large")]
    Result,
    #[error("up to here, tract needs more than {} MiB", MAX_TRACT_BYTES >> 20)]
    Memory,
    #[error("takes too many operations")]
    Work,
    #[error("takes too many operations, although its inputs are constant")]
    ConstantWork,
    #[error("is behind {MAX_TRACT_NODES} others that are not computed in integers, more than affectd accepts")]
    Nodes,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            bytes: MAX_TRACT_BYTES,
            work: MAX_WORK,
            constant_work: MAX_CONSTANT_WORK,
            nodes: MAX_TRACT_NODES,
        }
    }
}

impl Budget {
    /// Takes a node that needs `work` operations in every run.
    pub fn take_node(&mut self, work: u64) -> Result<(), OverLimit> {
        self.nodes = self.nodes.checked_sub(1).ok_or(OverLimit::Nodes)?;
        self.work = self.work.checked_sub(work).ok_or(OverLimit::Work)?;
        Ok(())
    }

    /// Takes a node with constant inputs, which needs `work` operations while the graph is loaded.
    pub fn take_constant(&mut self, work: u64) -> Result<(), OverLimit> {
        self.nodes = self.nodes.checked_sub(1).ok_or(OverLimit::Nodes)?;
        self.constant_work = self.constant_work.checked_sub(work).ok_or(OverLimit::ConstantWork)?;
        Ok(())
    }

    /// Takes a tensor. It may be empty: an empty list stands for an input that is not given.
    pub fn take_tensor(&mut self, dims: &[usize], bytes_per_value: usize) -> Result<(), OverLimit> {
        if !dims.contains(&0) && size(dims).is_none() {
            return Err(OverLimit::Result);
        }
        let bytes = dims.iter().product::<usize>() * bytes_per_value;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(OverLimit::Memory)?;
        Ok(())
    }
}
