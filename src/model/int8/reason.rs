//! Why a node is not computed in integers.

use serde::{Serialize, Serializer};

/// A node that is not computed in integers, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{op} {node}: {reason}")]
pub struct FallbackNode {
    /// The ONNX operator; `graph` or `output` if the whole graph cannot be compiled.
    pub op: String,
    /// The node's name, or the name of its first output.
    pub node: String,
    pub reason: Reason,
}

/// What keeps a node, or a whole graph, from being computed in integers. All of the importer's limits are listed here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    // The graph as a whole.
    #[error("tract cannot load it on its own ({0})")]
    TractRejects(String),

    // Operators and their inputs.
    #[error("this operator is not supported in integers")]
    UnsupportedOperator,
    #[error("does not have exactly one output")]
    NotOneOutput,
    #[error("lacks input {0}")]
    MissingInput(usize),
    #[error("its input {0} is not computed before it")]
    InputNotComputed(String),
    #[error("its input {0} is computed in f32")]
    InputInFloat(String),
    #[error("its input {0} is not quantized")]
    InputNotQuantized(String),
    #[error("its input {0} is not constant")]
    InputNotConstant(String),
    #[error("its input {0} is not a quantized constant")]
    InputNotQuantizedConstant(String),
    #[error("its input {0} is integers, which f32 operators do not read")]
    InputIsIntegers(String),
    #[error("its result is not quantized")]
    ResultNotQuantized,
    #[error("its result has the shape {0:?}: no values, too many values or too many dimensions")]
    TooLarge(Vec<usize>),
    #[error("the graph rearranges or repeats too many values")]
    TooManyRearranged,
    #[error("the graph has too many constants")]
    TooManyConstants,
    #[error("takes too many operations")]
    TooMuchWork,
    #[error("has a batch size other than 1")]
    Batch,
    #[error("needs an image, [1, channels, height, width], but its input is {0:?}")]
    NotAnImage(Vec<usize>),

    // Constants.
    #[error("its constant has an unsupported data type")]
    ConstantType,
    #[error("its constant {0} has no source")]
    ConstantWithoutSource(String),
    #[error("its constant is not f32")]
    ConstantNotF32,
    #[error("its constant is not integers")]
    ConstantNotIntegers,
    #[error("its constant does not fit 8 bits")]
    ConstantNot8Bit,
    #[error("its constant has more than one scale")]
    SeveralConstantScales,

    // Quantization.
    #[error("its scale is not f32")]
    ScaleNotF32,
    #[error("has a scale that is not a positive number")]
    ScaleNotPositive,
    #[error("the number of scales differs from the length of its axis")]
    ScaleCount,
    #[error("its zero point is not s8 or u8")]
    ZeroPointType,
    #[error("its zero point is not constant")]
    ZeroPointNotConstant,
    #[error("the number of zero points differs from the number of scales")]
    ZeroPointCount,
    #[error("quantizes activations with more than one scale")]
    SeveralActivationScales,
    #[error("quantizes integers")]
    QuantizesIntegers,
    #[error("dequantizes u8 values as s8 values, or the other way round")]
    DequantizesDifferently,
    #[error("dequantizes a value that is not integers")]
    DequantizesReals,

    // Weights and biases.
    #[error("has weight scales that are not one per output")]
    WeightScales,
    #[error("has weights with a zero point other than 0")]
    WeightZeroPoint,
    #[error("its weights have the shape {0:?}")]
    WeightShape(Vec<usize>),
    #[error("its bias is not constant")]
    BiasNotConstant,
    #[error("its bias is not f32")]
    BiasNotF32,
    #[error("the number of biases differs from the number of outputs or scales")]
    BiasCount,
    #[error("a bias is too large for 32 bits at the scales of its input and its weights")]
    BiasTooLarge,

    // Convolutions and pools.
    #[error("has {groups} groups, which do not fit {channels} channels and weights of the shape {weights:?}")]
    Groups {
        groups: usize,
        channels: usize,
        weights: Vec<usize>,
    },
    #[error("has groups, and its result is not quantized")]
    GroupsNotQuantized,
    #[error("its window is not two-dimensional")]
    WindowNot2d,
    #[error("its window is larger than the padded image")]
    WindowTooLarge,
    #[error("its pads are negative or not two-dimensional")]
    Pads,
    #[error("its auto_pad mode is not supported")]
    AutoPad,
    #[error("has both ceil_mode and count_include_pad")]
    CeilModeWithPadding,
    #[error("reduces axes other than height and width")]
    ReducedAxes,

    // Matrix products.
    #[error("its matrices have the shapes {0:?} and {1:?}")]
    MatrixShapes(Vec<usize>, Vec<usize>),
    #[error("sums {0} products, more than 32 bits hold")]
    Depth(usize),
    #[error("multiplies activations with zero points other than 0 at a depth of {0}")]
    DepthWithZeroPoints(usize),
    #[error("has alpha, beta or transA")]
    GemmAttributes,
    #[error("its weights do not fit its input, or the input has more than one channel")]
    LinearShape,
    #[error("has several rows, and its result is not quantized")]
    RowsNotQuantized,
    #[error("is a batch of matrices or has zero points, and its result is not quantized")]
    BatchNotQuantized,

    // Element-wise operators.
    #[error("divides by something other than a single constant")]
    Division,
    #[error("combines two constants, or repeats a tensor to combine it with a constant")]
    ConstantOperands,
    #[error("combines the shapes {0:?} and {1:?}")]
    Broadcast(Vec<usize>, Vec<usize>),
    #[error("is a function of too many nodes")]
    FunctionTooLong,
    #[error("its limits are not f32")]
    LimitsNotF32,
    #[error("its limits are not constant")]
    LimitsNotConstant,
    #[error("its lower limit is above the upper one, or one is not a number")]
    LimitsReversed,

    // Operators that move values.
    #[error("its perm is not a permutation")]
    Permutation,
    #[error("takes a part of the batch, of an axis that does not exist, or of no length")]
    Part,
    #[error("its axis does not exist")]
    Axis,
    #[error("slices more than one axis")]
    SeveralSlicedAxes,
    #[error("its starts are not constant")]
    StartsNotConstant,
    #[error("has a negative step")]
    NegativeStep,
    #[error("its lengths are not constant")]
    LengthsNotConstant,
    #[error("its lengths do not add up to the length of the axis")]
    Lengths,
    #[error("its shape is not a constant of 64-bit integers")]
    ShapeNotConstant,
    #[error("reshapes {from:?} to {to:?}")]
    Reshape { from: Vec<usize>, to: Vec<i64> },
    #[error("has no inputs")]
    NoInputs,
    #[error("concatenates along the batch or an axis that does not exist")]
    ConcatAxis,
    #[error("concatenates shapes that differ in another axis")]
    ConcatShapes,
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
