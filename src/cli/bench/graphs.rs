//! The speed of each graph, on one thread.

use std::fmt::Write;
use std::mem::discriminant;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::progress::{ProgressLine, done};
use crate::model::bundle;
use crate::model::engine::{Engine, Footprint};
use crate::model::int8::FallbackNode;
use crate::model::{Bundle, GraphName, KernelChoice, ModelError};
use crate::printable::printable;

/// How long each graph runs, unless the number of runs is given.
const SPAN: Duration = Duration::from_secs(1);
/// Runs before the measurement, to fill caches and grow buffers.
const WARM_UP: usize = 3;

/// The measurements of one graph.
#[derive(Debug, Serialize)]
pub struct GraphReport {
    pub name: String,
    pub median_ms: f64,
    pub p99_ms: f64,
    /// Multiply-accumulates of one run.
    pub macs: u64,
    pub macs_per_s: f64,
    /// The share of the computing nodes that run in integers, 0 to 1.
    pub int8_share: f64,
    /// The share of the multiply-accumulates in integers, 0 to 1.
    pub int8_mac_share: f64,
    pub kernel: &'static str,
    /// From the file's bytes to a graph that can run.
    pub load_ms: f64,
    /// `None` if tract runs any part of the graph.
    pub memory: Option<Memory>,
    /// The nodes that are not computed in integers, and why.
    pub fallback_nodes: Vec<FallbackNode>,
}

/// The memory of a graph, in bytes.
#[derive(Debug, Serialize)]
pub struct Memory {
    loaded: usize,
    weights: usize,
    largest_activations: usize,
}

impl From<Footprint> for Memory {
    fn from(footprint: Footprint) -> Memory {
        Memory {
            loaded: footprint.loaded,
            weights: footprint.weights,
            largest_activations: footprint.activations,
        }
    }
}

/// Measures all graphs of a bundle.
pub fn of_bundle(
    bundle: &Bundle,
    runs: Option<usize>,
    line: &mut ProgressLine,
) -> Result<Vec<GraphReport>, ModelError> {
    let count = GraphName::ALL.len();
    let graphs = GraphName::ALL.into_iter().enumerate();
    graphs
        .map(|(index, graph)| {
            let unusable = |reason| ModelError::Unusable { graph, reason };
            let mut progress = |part: f64| {
                let all = (index as f64 + part) / count as f64;
                line.show(|elapsed| {
                    format!(
                        "graph {} of {count} ({}) {}",
                        index + 1,
                        graph.key(),
                        done(all, elapsed)
                    )
                });
            };
            let bytes = bundle.read(graph)?;
            measure(graph.key(), &bytes, bundle.kernel(), runs, unusable, &mut progress)
        })
        .collect()
}

/// Measures the graph in one ONNX file.
pub fn of_file(
    path: &Path,
    kernel: KernelChoice,
    runs: Option<usize>,
    line: &mut ProgressLine,
) -> Result<GraphReport, ModelError> {
    let bytes = bundle::read_bounded(path).map_err(|e| ModelError::Unreadable {
        path: path.to_path_buf(),
        reason: e.to_string(),
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unusable = |reason| ModelError::File {
        path: path.to_path_buf(),
        reason,
    };
    let mut progress = |part| line.show(|elapsed| format!("{name} {}", done(part, elapsed)));
    measure(&name, &bytes, kernel, runs, unusable, &mut progress)
}

/// `progress` gets the part that is done, 0 to 1, between two runs.
fn measure(
    name: &str,
    bytes: &[u8],
    kernel: KernelChoice,
    runs: Option<usize>,
    unusable: impl Fn(String) -> ModelError,
    progress: &mut dyn FnMut(f64),
) -> Result<GraphReport, ModelError> {
    progress(0.0);
    let started = Instant::now();
    let (mut engine, shapes) =
        Engine::load_file(bytes, kernel).map_err(|e| unusable(format!("cannot be loaded ({e:#})")))?;
    let load = started.elapsed();
    let inputs: Vec<Vec<f32>> = shapes.iter().map(|dims| noise(dims.iter().product())).collect();
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let mut run = || {
        let started = Instant::now();
        engine
            .run(&inputs, |outputs| std::hint::black_box(outputs).len())
            .map(|_| started.elapsed())
            .map_err(|e| unusable(format!("cannot be run ({e:#})")))
    };
    for _ in 0..WARM_UP {
        run()?;
    }
    let mut times = Vec::new();
    let started = Instant::now();
    loop {
        let part = match runs {
            Some(runs) => times.len() as f64 / runs as f64,
            None => started.elapsed().as_secs_f64() / SPAN.as_secs_f64(),
        };
        if part >= 1.0 {
            break;
        }
        progress(part);
        times.push(run()?);
    }
    times.sort_unstable();
    let percentile = |percent: usize| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    let median_ms = percentile(50);
    Ok(GraphReport {
        name: name.to_string(),
        median_ms,
        p99_ms: percentile(99),
        macs: engine.macs(),
        macs_per_s: engine.macs() as f64 / median_ms * 1e3,
        int8_share: engine.int8_share().nodes,
        int8_mac_share: engine.int8_share().macs,
        kernel: engine.kernel(),
        load_ms: load.as_secs_f64() * 1e3,
        memory: engine.footprint().map(Memory::from),
        fallback_nodes: engine.fallback_nodes().to_vec(),
    })
}

/// Pseudo-random values in −1..1, the same in every run.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / f32::from(2u8).powi(23) - 1.0
        })
        .collect()
}

/// A table. `peak` is the peak throughput of one core, in multiply-accumulates per second.
pub fn table(graphs: &[GraphReport], peak: Option<f64>) -> String {
    let mut table = String::new();
    // Writing into a string cannot fail.
    let _ = writeln!(
        table,
        "{:<28} {:>9} {:>9} {:>7} {:>7} {:>7} {:>5} {:>5} {:>6} {:>6}  kernels",
        "graph", "median", "p99", "M MAC", "GMAC/s", "of peak", "nodes", "MACs", "KiB", "load"
    );
    for g in graphs {
        let of_peak = peak.map_or("-".to_string(), |peak| percent(g.macs_per_s / peak));
        let loaded = g
            .memory
            .as_ref()
            .map_or("-".to_string(), |m| m.loaded.div_ceil(1024).to_string());
        let _ = writeln!(
            table,
            "{:<28} {:>6.3} ms {:>6.3} ms {:>7.1} {:>7.1} {:>7} {:>5} {:>5} {:>6} {:>3.0} ms  {}",
            printable(&g.name),
            g.median_ms,
            g.p99_ms,
            g.macs as f64 / 1e6,
            g.macs_per_s / 1e9,
            of_peak,
            percent(g.int8_share),
            percent(g.int8_mac_share),
            loaded,
            g.load_ms,
            g.kernel,
        );
        for line in in_groups(&g.fallback_nodes) {
            let _ = writeln!(table, "  not in integers: {}", printable(&line));
        }
    }
    table.push_str(
        "nodes, MACs: the share computed in integers; KiB: memory of the loaded graph; load: time to load it\n",
    );
    table
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// One line for all nodes of an operator that fall back for the same kind of reason.
fn in_groups(fallback_nodes: &[FallbackNode]) -> Vec<String> {
    let mut groups: Vec<(&FallbackNode, usize)> = Vec::new();
    for node in fallback_nodes {
        let alike =
            |other: &FallbackNode| other.op == node.op && discriminant(&other.reason) == discriminant(&node.reason);
        match groups.iter_mut().find(|(first, _)| alike(first)) {
            Some((_, count)) => *count += 1,
            None => groups.push((node, 1)),
        }
    }
    let line = |(first, count): (&FallbackNode, usize)| match count {
        1 => first.to_string(),
        n => format!("{first} (and {} more like it)", n - 1),
    };
    groups.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::int8::Reason;

    #[test]
    fn nodes_with_the_same_operator_and_reason_share_a_line() {
        let node = |op: &str, node: &str, reason: Reason| FallbackNode {
            op: op.into(),
            node: node.into(),
            reason,
        };
        let lines = in_groups(&[
            node("Conv", "c1", Reason::InputNotQuantized("x".into())),
            node("Softmax", "s", Reason::UnsupportedOperator),
            node("Conv", "c2", Reason::InputNotQuantized("y".into())),
        ]);
        insta::assert_snapshot!(lines.join("\n"), @r"
        Conv c1: its input x is not quantized (and 1 more like it)
        Softmax s: this operator is not supported in integers
        ");
    }
}
