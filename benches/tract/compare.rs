//! Compares tract with and without integer operators, on any ONNX file:
//!
//!     cargo run --release --example int8_in_tract FILE [RUNS]
//!
//! Prints the plan that tract runs, the nodes that are not computed in integers, the median time of both, and the largest difference
//! of the results. Inputs are noise in −1..1.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use affectd::model::int8::{self, Isa, Signature};
use anyhow::{Context, Result, ensure};
use tract_onnx::prelude::*;

fn main() -> ExitCode {
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("int8_in_tract: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().context("usage: int8_in_tract FILE [RUNS]")?;
    let runs: usize = arguments
        .next()
        .map_or(Ok(200), |runs| runs.parse())
        .context("RUNS is a number")?;
    let runs = runs.max(1);

    let bytes = std::fs::read(&file).with_context(|| file.clone())?;
    let proto = int8::read(&bytes)?;
    let Signature { inputs, outputs } = Signature::of(&proto)?;
    let named: Vec<(&str, &[usize])> = inputs.iter().map(|(name, dims)| (name.as_str(), &dims[..])).collect();
    let names: Vec<&str> = outputs.iter().map(String::as_str).collect();

    let isa = Isa::fastest().unwrap_or_else(|| {
        println!("this processor has no int8 kernels; the reference, which is slow, runs instead");
        Isa::Reference
    });
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
    for _ in 0..runs {
        for side in 0..2 {
            results[side].clear();
            let started = Instant::now();
            results[side] = int8::run(&mut states[side], tensors.clone())?;
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
        let Difference { largest, of } = difference(a, b).with_context(|| format!("output {name}"))?;
        println!("{name}: largest difference {largest}, largest value {of}");
    }
    Ok(())
}

/// How far two tensors are apart. NaN if a value of one of them is NaN and that of the other is not.
struct Difference {
    largest: f64,
    /// The largest magnitude in the second tensor.
    of: f64,
}

fn difference(a: &Tensor, b: &Tensor) -> Result<Difference> {
    ensure!(
        a.shape() == b.shape(),
        "has the shape {:?} with integer operators and {:?} without",
        a.shape(),
        b.shape()
    );
    let values = |tensor: &Tensor| -> Result<Vec<f64>> {
        let numbers = tensor.cast_to::<f64>()?;
        Ok(numbers.try_as_plain_ram()?.as_slice::<f64>()?.to_vec())
    };
    let (a, b) = (values(a)?, values(b)?);
    let apart = |(a, b): (&f64, &f64)| match a == b || a.is_nan() && b.is_nan() {
        true => 0.0,
        false => (a - b).abs(),
    };
    Ok(Difference {
        largest: a.iter().zip(&b).map(apart).fold(0.0, larger),
        of: b.iter().map(|b| b.abs()).fold(0.0, larger),
    })
}

/// The larger of two numbers, or NaN if one of them is NaN.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a >= b { a } else { b }
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
