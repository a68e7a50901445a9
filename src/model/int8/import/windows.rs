//! Convolutions and pools.

use tract_onnx::pb::NodeProto;

use super::super::limits::{MAX_ELEMENTS, MAX_WINDOW, elements};
use super::super::onnx::Attributes;
use super::super::operators::kernels::Microkernels;
use super::super::operators::window::Window;
use super::super::reason::Reason;
use super::importer::{Importer, check_depth, check_size};
use super::value::{Operator, Pending, Value, from_end};

impl<M: Microkernels> Importer<'_, M> {
    pub fn convolution(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let input = self.slot(node, 0)?;
        let [channels, height, width] = self.image_size(input)?;
        let weights = self.weights(node, 1)?;
        let [outputs, per_group, kernel_height, kernel_width] = weights.dims[..] else {
            return Err(Reason::WeightShape(weights.dims));
        };
        let groups = usize::try_from(node.integer("group", 1)).unwrap_or(0);
        if weights.dims.contains(&0) {
            return Err(Reason::WeightShape(weights.dims));
        }
        if groups == 0 || per_group.checked_mul(groups) != Some(channels) || !outputs.is_multiple_of(groups) {
            return Err(Reason::Groups {
                groups,
                channels,
                weights: weights.dims,
            });
        }
        let window = window(node, [height, width], [kernel_height, kernel_width])?;
        let dims = vec![1, outputs, window.output[0], window.output[1]];
        check_depth(per_group.saturating_mul(window.taps()))?;
        self.take_window(&window, channels, check_size(&dims)?, per_group)?;
        let operator = Operator::Convolution {
            input,
            window,
            weights,
            bias: self.bias(node, 2)?,
            groups,
        };
        Ok(Pending::new(operator, dims))
    }

    pub fn pool(&self, node: &NodeProto) -> Result<Pending, Reason> {
        let input = self.slot(node, 0)?;
        let [channels, height, width] = self.image_size(input)?;
        let size = [height, width];
        let whole_image = Window {
            input: size,
            output: [1, 1],
            kernel: size,
            stride: [1, 1],
            dilation: [1, 1],
            pad: [0, 0],
        };
        let window = match node.op_type.as_str() {
            "MaxPool" | "AveragePool" => window(node, size, pair(node.integers("kernel_shape"), None)?)?,
            "ReduceMean" if !self.reduces_height_and_width(node)? => return Err(Reason::ReducedAxes),
            _ => whole_image,
        };
        let counts_padding = node.op_type == "AveragePool" && node.integer("count_include_pad", 0) != 0;
        if counts_padding && node.integer("ceil_mode", 0) != 0 {
            return Err(Reason::CeilModeWithPadding);
        }
        let dims = match node.op_type.as_str() {
            "ReduceMean" if node.integer("keepdims", 1) == 0 => vec![1, channels],
            _ => vec![1, channels, window.output[0], window.output[1]],
        };
        check_depth(window.taps() / 256)?;
        self.take_window(&window, channels, check_size(&dims)?, 1)?;
        let operator = match node.op_type.as_str() {
            "MaxPool" | "GlobalMaxPool" => Operator::MaxPool { input, window },
            _ => Operator::AveragePool {
                input,
                window,
                counts_padding,
            },
        };
        Ok(Pending::new(operator, dims))
    }

    /// Counts the values that a window reads in one run, and rejects a padded image that is too large. `results` is the number of results,
    /// each of which needs `depth` channels.
    fn take_window(&self, window: &Window, channels: usize, results: usize, depth: usize) -> Result<(), Reason> {
        let taps = (results as u64).saturating_mul(window.taps() as u64);
        self.take_work(taps.saturating_mul(depth as u64))?;
        // Depthwise convolutions copy the lines under a window with their padding.
        let [lines, columns] = [0, 1].map(|axis| {
            let span = (window.kernel[axis] - 1) * window.dilation[axis] + 1;
            (window.output[axis] - 1) * window.stride[axis] + span
        });
        match elements(&[channels, lines, columns]) {
            Some(size) if size <= 4 * MAX_ELEMENTS => Ok(()),
            _ => Err(Reason::TooLarge(vec![channels, lines, columns])),
        }
    }

    fn reduces_height_and_width(&self, node: &NodeProto) -> Result<bool, Reason> {
        let axes = match self.optional(node, 1)? {
            Some(Value::Constant(axes)) => axes.integers().map(<[i64]>::to_vec),
            _ => node.integers("axes").map(<[i64]>::to_vec),
        };
        let mut axes: Vec<_> = axes.unwrap_or_default().iter().map(|a| from_end(*a, 4)).collect();
        axes.sort_unstable();
        Ok(axes == [Some(2), Some(3)])
    }
}

fn pair(values: Option<&[i64]>, default: Option<usize>) -> Result<[usize; 2], Reason> {
    let limits = 1..=MAX_WINDOW;
    match (values, default) {
        (Some([a, b]), _) if limits.contains(a) && limits.contains(b) => Ok([*a as usize, *b as usize]),
        (None, Some(d)) => Ok([d, d]),
        _ => Err(Reason::WindowNot2d),
    }
}

/// The geometry of a Conv or a pool.
fn window(node: &NodeProto, input: [usize; 2], kernel: [usize; 2]) -> Result<Window, Reason> {
    if kernel.iter().any(|length| *length > MAX_WINDOW as usize) {
        return Err(Reason::WindowTooLarge);
    }
    let stride = pair(node.integers("strides"), Some(1))?;
    let mut dilation = pair(node.integers("dilations"), Some(1))?;
    for axis in 0..2 {
        // A single tap has no distance to another.
        if kernel[axis] == 1 {
            dilation[axis] = 1;
        }
    }
    let extent = [0, 1].map(|axis| (kernel[axis] - 1) * dilation[axis] + 1);
    let pads = match node.text("auto_pad") {
        None | Some(b"" | b"NOTSET") => match node.integers("pads") {
            None => [0; 4],
            Some(&[a, b, c, d]) if [a, b, c, d].iter().all(|pad| (0..=MAX_WINDOW).contains(pad)) => {
                [a, b, c, d].map(|pad| pad as usize)
            }
            Some(_) => return Err(Reason::Pads),
        },
        Some(b"VALID") => [0; 4],
        Some(mode @ (b"SAME_UPPER" | b"SAME_LOWER")) => {
            // The output has the input's size divided by the stride, rounded up. If the padding is odd, SAME_UPPER puts the larger
            // half at the end, SAME_LOWER at the start.
            let both = [0, 1].map(|axis| {
                let needed = (input[axis].div_ceil(stride[axis]) - 1) * stride[axis] + extent[axis];
                let all = needed.saturating_sub(input[axis]);
                let small = all / 2;
                if mode == b"SAME_UPPER" {
                    [small, all - small]
                } else {
                    [all - small, small]
                }
            });
            [both[0][0], both[1][0], both[0][1], both[1][1]]
        }
        Some(_) => return Err(Reason::AutoPad),
    };
    let mut output = [0; 2];
    for axis in 0..2 {
        let room = (input[axis] + pads[axis] + pads[axis + 2])
            .checked_sub(extent[axis])
            .ok_or(Reason::WindowTooLarge)?;
        output[axis] = room / stride[axis] + 1;
        // ceil_mode rounds up, unless the last window would start beyond the image.
        let beyond = output[axis] * stride[axis];
        if node.integer("ceil_mode", 0) != 0 && !room.is_multiple_of(stride[axis]) && beyond < input[axis] + pads[axis]
        {
            output[axis] += 1;
        }
    }
    Ok(Window {
        input,
        output,
        kernel,
        stride,
        dilation,
        pad: [pads[0], pads[1]],
    })
}
