//! Faults at random: real processes, a real broker, and faults that a seed picks and times. See README.md.
//!
//! ```text
//! cargo test --release --test faults                                      ten seeds
//! AFFECTD_FAULT_SEED=17 cargo test --release --test faults -- --nocapture one seed
//! AFFECTD_FAULT_SEEDS=500 cargo test --release --test faults -- --nocapture
//! ```

#![allow(
    clippy::cast_possible_truncation,
    reason = "test data is small, and a wrong value fails the test"
)]

mod bench;
mod clip;
mod clock;
mod exit;
mod namespaces;
mod plan;
mod process;
mod proxy;
mod random;
mod received;
mod seed;

#[path = "../support/ebml.rs"]
mod ebml;
#[path = "../support/matroska.rs"]
mod matroska;
#[path = "../support/mosquitto.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod mosquitto;
#[path = "../support/pty.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod pty;

use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use plan::Plan;
use seed::Outcome;

/// Seeds that run at once. They mostly wait.
const AT_ONCE: u64 = 10;
/// Seeds of an ordinary test run.
const FEW: RangeInclusive<u64> = 1..=10;

/// The seeds to run, from the environment.
fn seeds() -> RangeInclusive<u64> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
    };
    match (number("AFFECTD_FAULT_SEED"), number("AFFECTD_FAULT_SEEDS")) {
        (Some(one), _) => one..=one,
        (None, Some(count)) => 1..=count,
        (None, None) => FEW,
    }
}

fn run(plan: &Plan) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| seed::run(plan))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("the test itself failed: {}", text.unwrap_or("a panic")))
    })
}

#[test]
fn random_faults_lose_nothing_uncounted_and_end() {
    let seeds = seeds();
    let next = AtomicU64::new(*seeds.start());
    let (failures, outcomes) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                break;
            }
            let (plan, started) = (Plan::of(seed), Instant::now());
            // A thread of its own, because its namespaces end with it.
            let result = thread::scope(|scope| scope.spawn(|| run(&plan)).join().expect("panics are caught"));
            let seconds = started.elapsed().as_secs_f32();
            match result {
                Ok(outcome) => {
                    println!("seed {seed}: passed in {seconds:.1} s: {outcome:?}");
                    outcomes.lock().unwrap().push(outcome);
                }
                Err(why) => {
                    println!("{plan}\nseed {seed}: failed after {seconds:.1} s: {why}\n");
                    let first = why.lines().next().unwrap_or_default();
                    failures.lock().unwrap().push(format!("seed {seed}: {first}"));
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let (failures, outcomes) = (failures.into_inner().unwrap(), outcomes.into_inner().unwrap());
    print_summary(&outcomes);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn print_summary(outcomes: &[Outcome]) {
    if let Some(slow) = outcomes.iter().max_by_key(|outcome| outcome.recovery) {
        println!("the last output to recover: {}", slow.slowest);
    }
    let largest = |of: fn(&Outcome) -> Duration| outcomes.iter().map(of).max().unwrap_or_default().as_secs_f32();
    println!(
        "{} seeds passed: {} estimates, {} dropped and counted; longest recovery {:.1} s, longest exit {:.2} s, \
         largest growth of memory {} KiB; rights: {:?}",
        outcomes.len(),
        outcomes.iter().map(|outcome| outcome.estimates).sum::<u64>(),
        outcomes.iter().map(|outcome| outcome.dropped).sum::<u64>(),
        largest(|outcome| outcome.recovery),
        largest(|outcome| outcome.exit),
        outcomes
            .iter()
            .map(|outcome| outcome.memory_growth_kib)
            .max()
            .unwrap_or_default(),
        outcomes.first().map(|outcome| outcome.rights),
    );
}

#[test]
fn a_plan_follows_from_its_seed() {
    for seed in 0..100 {
        assert_eq!(Plan::of(seed).to_string(), Plan::of(seed).to_string());
    }
    assert_ne!(
        Plan::of(1).to_string(),
        Plan::of(2).to_string().replace("seed 2", "seed 1")
    );
}
