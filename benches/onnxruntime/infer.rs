//! Runs a graph on inputs from files, for `agree.py`:
//!
//!     infer GRAPH OUT INPUT...
//!
//! Each INPUT file holds the values of one graph input as native-endian f32, for one or more inferences. The program writes one
//! file per output: OUT.0, OUT.1 and so on. It lists the nodes that are not computed in integers on standard error.
//! AFFECTD_KERNEL selects the kernels.

use std::path::Path;

use affectd::model::KernelChoice;
use affectd::model::engine::Engine;
use affectd::model::kernel::KERNEL_VARIABLE;
use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [graph, out, inputs @ ..] = &arguments[..] else {
        bail!("usage: infer GRAPH OUT INPUT...");
    };
    let kernel = KernelChoice::parse(&std::env::var(KERNEL_VARIABLE).unwrap_or_default())?;
    let (mut engine, shapes) = Engine::load_file(&std::fs::read(graph)?, kernel)?;
    for node in engine.fallback_nodes() {
        eprintln!("{node}");
    }
    let inputs = inputs
        .iter()
        .map(|path| read(Path::new(path)))
        .collect::<Result<Vec<_>>>()?;
    let lengths: Vec<usize> = shapes.iter().map(|dims| dims.iter().product()).collect();
    let first = inputs.first().zip(lengths.first());
    let times = first.map_or(1, |(input, length)| input.len() / length);
    let mut results: Vec<Vec<u8>> = Vec::new();
    for time in 0..times {
        let slices = inputs.iter().zip(&lengths);
        let slices: Vec<&[f32]> = slices
            .map(|(input, length)| &input[time * length..][..*length])
            .collect();
        engine.run(&slices, |outputs| {
            results.resize(outputs.len(), Vec::new());
            for (result, output) in results.iter_mut().zip(outputs) {
                result.extend(output.iter().flat_map(|value| value.to_ne_bytes()));
            }
        })?;
    }
    for (index, result) in results.iter().enumerate() {
        std::fs::write(format!("{out}.{index}"), result)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let (values, _) = bytes.as_chunks();
    Ok(values.iter().map(|value| f32::from_ne_bytes(*value)).collect())
}
