//! The graphs, one by one, on one thread.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::model::engine::{Engine, Footprint, Kernel};
use crate::model::int8::FallbackNode;
use crate::model::{Bundle, GraphName, ModelError};

/// How long each graph is run, unless a number of runs is given.
const SPAN: Duration = Duration::from_secs(1);
/// Runs before the clock counts: caches fill, buffers grow.
const WARM_UP: usize = 3;

#[derive(Debug, Serialize)]
pub struct GraphReport {
    pub name: String,
    pub median_ms: f64,
    pub p99_ms: f64,
    pub macs: u64,
    pub macs_per_s: f64,
    /// Of the nodes that compute something, and of the multiply-accumulates.
    pub int8_share: f64,
    pub int8_mac_share: f64,
    pub kernel: &'static str,
    /// Loading, until it can run.
    pub load_ms: f64,
    /// Where none of it runs in tract.
    pub memory: Option<Memory>,
    /// The nodes that are not computed in integers, and why.
    pub fallback_nodes: Vec<FallbackNode>,
}

/// In bytes.
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

pub fn of_bundle(bundle: &Bundle, runs: Option<usize>) -> Result<Vec<GraphReport>, ModelError> {
    let graphs = GraphName::ALL.into_iter();
    graphs
        .map(|graph| {
            let unfit = |reason| ModelError::Unfit { graph, reason };
            measure(graph.key(), &bundle.read(graph)?, runs, unfit)
        })
        .collect()
}

pub fn of_file(path: &Path, runs: Option<usize>) -> Result<GraphReport, ModelError> {
    let bytes = std::fs::read(path).map_err(|e| ModelError::Unreadable {
        path: path.to_path_buf(),
        reason: e.to_string(),
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfit = |reason| ModelError::Foreign {
        path: path.to_path_buf(),
        reason,
    };
    measure(&name, &bytes, runs, unfit)
}

fn measure(
    name: &str,
    bytes: &[u8],
    runs: Option<usize>,
    unfit: impl Fn(String) -> ModelError,
) -> Result<GraphReport, ModelError> {
    let kernel = Kernel::wanted().map_err(&unfit)?;
    let started = Instant::now();
    let (mut engine, shapes) =
        Engine::load_file(bytes, kernel).map_err(|e| unfit(format!("cannot be loaded ({e:#})")))?;
    let load = started.elapsed();
    let inputs: Vec<Vec<f32>> = shapes.iter().map(|dims| noise(dims.iter().product())).collect();
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let mut run = || {
        let started = Instant::now();
        engine
            .run(&inputs, |outputs| std::hint::black_box(outputs).len())
            .map(|_| started.elapsed())
            .map_err(|e| unfit(format!("cannot be run ({e:#})")))
    };
    for _ in 0..WARM_UP {
        run()?;
    }
    let mut times = Vec::new();
    let started = Instant::now();
    while runs.map_or(started.elapsed() < SPAN, |runs| times.len() < runs) {
        times.push(run()?);
    }
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    Ok(GraphReport {
        name: name.to_string(),
        median_ms: at(0.5),
        p99_ms: at(0.99),
        macs: engine.macs(),
        macs_per_s: engine.macs() as f64 / at(0.5) * 1e3,
        int8_share: engine.int8_share().nodes,
        int8_mac_share: engine.int8_share().macs,
        kernel: engine.kernel(),
        load_ms: load.as_secs_f64() * 1e3,
        memory: engine.footprint().map(Memory::from),
        fallback_nodes: engine.fallback_nodes().to_vec(),
    })
}

/// Values in −1..1, always the same.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / f32::from(2u8).powi(23) - 1.0
        })
        .collect()
}

/// As a table; `peak` are the multiply-accumulates a second that one processor could do.
pub fn print(graphs: &[GraphReport], peak: Option<f64>) {
    println!(
        "{:<28} {:>9} {:>9} {:>7} {:>7} {:>7} {:>5} {:>5} {:>6} {:>6}  kernels",
        "graph", "median", "p99", "M MAC", "GMAC/s", "of peak", "nodes", "MACs", "KiB", "load"
    );
    for g in graphs {
        let of_peak = peak.map_or("-".to_string(), |peak| percent(g.macs_per_s / peak));
        let loaded = g
            .memory
            .as_ref()
            .map_or("-".to_string(), |m| m.loaded.div_ceil(1024).to_string());
        println!(
            "{:<28} {:>6.3} ms {:>6.3} ms {:>7.1} {:>7.1} {:>7} {:>5} {:>5} {:>6} {:>3.0} ms  {}",
            g.name,
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
            println!("  not in integers: {line}");
        }
    }
    println!("nodes, MACs: the share of them that is computed in integers; KiB: what the loaded graph holds");
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// One line for all nodes of a kind that are left for the same reason, names of inputs aside.
fn in_groups(fallback_nodes: &[FallbackNode]) -> Vec<String> {
    let mut groups: Vec<(&FallbackNode, usize)> = Vec::new();
    for node in fallback_nodes {
        let alike = |other: &FallbackNode| {
            let reason = |node: &FallbackNode| node.reason.split(" input ").next().map(str::to_string);
            other.op == node.op && reason(other) == reason(node)
        };
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

    #[test]
    fn nodes_left_for_the_same_reason_make_one_line() {
        let left = |op: &str, node: &str, reason: &str| FallbackNode {
            op: op.into(),
            node: node.into(),
            reason: reason.into(),
        };
        let lines = in_groups(&[
            left("Conv", "c1", "its input x is not quantized"),
            left(
                "Softmax",
                "s",
                "is not among the operators that are computed in integers",
            ),
            left("Conv", "c2", "its input y is not quantized"),
        ]);
        insta::assert_snapshot!(lines.join("\n"), @r"
        Conv c1: its input x is not quantized (and 1 more like it)
        Softmax s: is not among the operators that are computed in integers
        ");
    }
}
