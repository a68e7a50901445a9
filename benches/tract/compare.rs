//! Compares tract with and without integer operators, on any ONNX file:
//!
//!     cargo run --release --example int8_in_tract FILE [RUNS]
//!
//! Prints the plan that tract runs, the nodes that are not computed in integers, the median time of both, and the largest difference
//! of the results. Inputs are noise in −1..1.

use std::time::{Duration, Instant};

use affectd::model::int8::{self, Isa, Signature};
use anyhow::{Context, Result};
use tract_onnx::prelude::*;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().context("usage: int8_in_tract FILE [RUNS]")?;
    let runs: usize = arguments
        .next()
        .map_or(Ok(200), |runs| runs.parse())
        .context("RUNS is a number")?;

    let proto = tract_onnx::onnx().proto_model_for_path(&file)?;
    let Signature { inputs, outputs } = Signature::of(&proto).context("an input has no static shape")?;
    let named: Vec<(&str, &[usize])> = inputs.iter().map(|(name, dims)| (name.as_str(), &dims[..])).collect();
    let names: Vec<&str> = outputs.iter().map(String::as_str).collect();

    let isa = Isa::fastest().unwrap_or(Isa::Reference);
    let with = int8::load(&proto, &named, &names, Some(isa))?;
    for node in &with.fallback_nodes {
        println!("not in integers: {node}");
    }
    let with = with.into_plan()?;
    print!("{}", with.plan.model());
    for node in with.plan.model().nodes() {
        for line in node.op().info()? {
            println!("{} {}: {line}", node.op().name(), node.name);
        }
    }
    let without = int8::load(&proto, &named, &names, None)?.into_plan()?;

    let tensors = named
        .iter()
        .map(|(_, dims)| noise(dims))
        .collect::<Result<TVec<TValue>>>()?;
    let mut states = [with.plan.spawn()?, without.plan.spawn()?];
    let mut times = [vec![], vec![]];
    let mut results = [tvec![], tvec![]];
    // The plans take turns, so that other load on the machine affects both alike.
    for _ in 0..runs.max(1) {
        for side in 0..2 {
            results[side].clear();
            let started = Instant::now();
            results[side] = states[side].run(tensors.clone())?;
            times[side].push(started.elapsed());
        }
    }
    let [with, without] = times.map(median);
    println!(
        "median of {runs} runs: {:.3} ms with integer operators, {:.3} ms with tract alone",
        with.as_secs_f64() * 1e3,
        without.as_secs_f64() * 1e3
    );
    let [with, without] = results;
    for (name, (a, b)) in names.iter().zip(with.iter().zip(&without)) {
        let (a, b) = (
            a.try_as_plain_ram()?.as_slice::<f32>()?,
            b.try_as_plain_ram()?.as_slice::<f32>()?,
        );
        let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let largest = b.iter().map(|b| b.abs()).fold(0.0, f32::max);
        println!("{name}: largest difference {difference}, largest value {largest}");
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Pseudo-random values in −1..1, the same in every run.
fn noise(dims: &[usize]) -> Result<TValue> {
    let mut state = 1u32;
    let values = (0..dims.iter().product()).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / f32::from(2u8).powi(23) - 1.0
    });
    Ok(Tensor::from_shape(dims, &values.collect::<Vec<f32>>())?.into_tvalue())
}
