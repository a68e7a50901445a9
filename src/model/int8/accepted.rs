//! The operators that a graph may have.
//!
//! They are those of feed-forward networks and of the shapes that exporters compute in a graph. For each of them, tract infers the shape of
//! the result before it computes it. Operators with nested graphs, with random results, or for which tract computes first (Range,
//! GatherND) are left out, because their memory and time cannot be bounded. Recurrent operators are left out because nothing tests
//! them here.

/// How many inputs an operator needs at least; `None` if it is not accepted.
pub fn least_inputs(op: &str) -> Option<usize> {
    Some(match op {
        "Constant" => 0,
        // Quantization, and functions of one value.
        "Abs" | "Cast" | "Ceil" | "Celu" | "Clip" | "Cos" | "Dropout" | "Elu" | "Erf" | "Exp" | "Floor" | "Gelu"
        | "HardSigmoid" | "HardSwish" | "Identity" | "LeakyRelu" | "Log" | "Mish" | "Neg" | "Not" | "Reciprocal"
        | "Relu" | "Round" | "Selu" | "Sigmoid" | "Sign" | "Sin" | "Softplus" | "Softsign" | "Sqrt" | "Tanh"
        | "ThresholdedRelu" => 1,
        "QuantizeLinear" | "DequantizeLinear" => 2,
        // Functions of several values.
        "Max" | "Mean" | "Min" | "Sum" => 1,
        "Add" | "And" | "Div" | "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Mod" | "Mul"
        | "Or" | "PRelu" | "Pow" | "Sub" | "Xor" => 2,
        "Where" => 3,
        // Layers.
        "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" | "LRN" | "LogSoftmax" | "MaxPool" | "Softmax" => 1,
        "Conv" | "ConvTranspose" | "Gemm" | "LayerNormalization" | "MatMul" => 2,
        "GroupNormalization" | "InstanceNormalization" => 3,
        "BatchNormalization" => 5,
        "ArgMax" | "ArgMin" | "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax"
        | "ReduceMean" | "ReduceMin" | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => 1,
        // Shapes, and operators that move values.
        "Concat" | "ConstantOfShape" | "DepthToSpace" | "Flatten" | "Pad" | "Resize" | "Shape" | "Size" | "Slice"
        | "SpaceToDepth" | "Split" | "Squeeze" | "Transpose" | "Unsqueeze" => 1,
        "Expand" | "Gather" | "Reshape" | "Tile" => 2,
        _ => return None,
    })
}
