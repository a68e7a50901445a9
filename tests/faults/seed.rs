//! Runs one seed, and checks what must hold.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bench::{Bench, Rights};
use super::plan::{Ending, Fault, Input, Plan, Planned, Reload, Target};
use super::process::Resources;
use super::received::{Lines, lines_in, lines_of};

/// affectd ends within this time after SIGTERM.
const EXIT_BOUND: Duration = Duration::from_secs(5);
/// What a busy machine may add to a promised time.
const MARGIN: Duration = Duration::from_secs(30);
/// Estimates that every output has received before the first fault, and after the last.
const ESTIMATES: u64 = 5;
/// How long the start may take.
const START: Duration = Duration::from_secs(60);
/// What the memory may grow by in a seed: buffers, and the allocator's caches of threads that started again.
const MEMORY_GROWTH_KIB: u64 = 8 << 10;
/// A face is seen again within this time after the damaged frames.
const AFTER_DAMAGE: Duration = Duration::from_secs(3);
/// A seed logs a few lines about each fault, however often it is tried again.
const MAX_LOG_LINES: usize = 100;

/// What a seed has measured.
#[derive(Debug)]
pub struct Outcome {
    pub rights: Rights,
    /// Time from the end of the last fault until all outputs had an estimate made after it.
    pub recovery: Duration,
    /// The output that was the last to recover.
    pub slowest: &'static str,
    /// Time from SIGTERM to the end.
    pub exit: Duration,
    pub estimates: u64,
    /// Estimates that affectd counted as dropped.
    pub dropped: u64,
    pub memory_growth_kib: i64,
}

/// Runs a plan. The error is the violated invariant, with the logs.
pub fn run(plan: &Plan) -> Result<Outcome, String> {
    let mut bench = Bench::start(plan);
    let result = drive(plan, &mut bench);
    result.map_err(|why| {
        let mut text = format!("{why}\n\naffectd's log:\n{}", bench.affectd.log());
        let _ = write!(text, "\nthe broker's log:\n{}", bench.broker_log());
        text
    })
}

fn drive(plan: &Plan, bench: &mut Bench) -> Result<Outcome, String> {
    all_reach(bench, ESTIMATES, START).map_err(|why| format!("start: {why}"))?;
    let before = bench.affectd.resources();
    let possible = |fault: Fault| bench.rights != Rights::None || !fault.needs_root();
    let faults: Vec<Planned> = plan.faults.iter().copied().filter(|p| possible(p.fault)).collect();
    let ending = match plan.ending {
        Ending::During(fault) if !possible(fault) => Ending::Recovered,
        ending => ending,
    };
    let started = Instant::now();
    let mut events: Vec<(Duration, bool, Fault)> = faults
        .iter()
        .flat_map(|planned| {
            let end = (planned.ends(), false, planned.fault);
            [
                Some((planned.at, true, planned.fault)),
                (!planned.lasts.is_zero()).then_some(end),
            ]
        })
        .flatten()
        .collect();
    events.sort_by_key(|(at, ..)| *at);
    for (at, begins, fault) in events {
        bench.run_until(started + at);
        running(bench)?;
        match begins {
            true => bench.begin(fault),
            false => bench.end(fault),
        }
    }
    if let Input::DamagedClip { until, .. } = plan.input {
        play_beyond(bench, until + AFTER_DAMAGE)?;
    }
    let newest = bench.control().last();
    let promise = faults.iter().map(|planned| promise(planned.fault)).max();
    let (recovery, slowest) = all_reach(bench, newest + 1, promise.unwrap_or_default() + MARGIN)
        .map_err(|why| format!("after the last fault: {why}"))?;
    all_reach(bench, newest + ESTIMATES, MARGIN).map_err(|why| format!("after the recovery: {why}"))?;
    let expects_active = expects_active(plan, &faults);
    if let Some(reload) = faults.iter().find_map(|planned| match planned.fault {
        Fault::Reload(reload) => Some(reload),
        _ => None,
    }) {
        reload_has_outcome(bench, reload, expects_active)?;
    }
    let growth = resources_are_flat(bench, before, plan.reload())?;

    if let Ending::During(fault) = ending {
        bench.begin(fault);
        bench.run_until(Instant::now() + Duration::from_secs(1));
        running(bench)?;
    }
    bench.affectd.signal(libc::SIGTERM);
    let asked = Instant::now();
    let status = loop {
        if let Some(status) = bench.affectd.ended() {
            break status;
        }
        if asked.elapsed() > EXIT_BOUND + MARGIN {
            return Err(format!("affectd does not end within {EXIT_BOUND:?} after SIGTERM"));
        }
        bench.pump();
    };
    let exit = asked.elapsed();
    if let Ending::During(fault) = ending {
        bench.end_after_exit(fault);
    }
    let dropped = check(plan, ending, bench, status)?;
    Ok(Outcome {
        rights: bench.rights,
        recovery,
        slowest,
        exit,
        estimates: bench.control().last(),
        dropped,
        memory_growth_kib: growth,
    })
}

fn running(bench: &mut Bench) -> Result<(), String> {
    match bench.affectd.ended() {
        Some(status) => Err(format!("affectd has ended by itself: {status}")),
        None => Ok(()),
    }
}

/// Waits until every output has received the estimate `number` or a later one. Returns how long that took, and the last output.
fn all_reach(bench: &mut Bench, number: u64, limit: Duration) -> Result<(Duration, &'static str), String> {
    let started = Instant::now();
    let mut slowest = "none";
    loop {
        running(bench)?;
        let newest = bench.newest();
        match newest.iter().find(|(_, newest)| *newest < number) {
            None => return Ok((started.elapsed(), slowest)),
            Some((name, _)) => slowest = name,
        }
        if started.elapsed() > limit {
            let control = bench.control().last();
            return Err(format!(
                "no estimate from number {number} on reaches all outputs within {limit:?}: {newest:?}; \
                 the newest one is number {control}"
            ));
        }
        bench.pump();
    }
}

/// Waits for estimates of this time of the clip.
fn play_beyond(bench: &mut Bench, time: Duration) -> Result<(), String> {
    let deadline = Instant::now() + START;
    let t = |bench: &Bench| bench.control().estimates.last().and_then(|line| line["t"].as_f64());
    while t(bench) < Some(time.as_secs_f64()) {
        running(bench)?;
        if Instant::now() > deadline {
            return Err(format!("no estimate for {time:?} of the clip"));
        }
        bench.pump();
    }
    Ok(())
}

/// How soon the outputs work after a fault has ended.
fn promise(fault: Fault) -> Duration {
    match fault.target() {
        // A broker that has rejected the password twice is tried again after ten seconds.
        Target::Broker if fault == Fault::BrokerRefuses => Duration::from_secs(10),
        Target::Broker => Duration::from_secs(5),
        // The process, and a broker that went away meanwhile.
        Target::Process => Duration::from_secs(5),
        Target::Serial => Duration::from_secs(1),
        Target::Disk | Target::Stdout | Target::Clock => Duration::from_secs(1),
        // An output that is replaced may take five seconds to close.
        Target::Configuration => Duration::from_secs(10),
    }
}

/// Whether the plan's reload must succeed; `None` if another fault may prevent it.
fn expects_active(plan: &Plan, faults: &[Planned]) -> Option<bool> {
    let reload = faults
        .iter()
        .find(|planned| matches!(planned.fault, Fault::Reload(_)))?;
    let is_valid = plan.input == Input::Absent && plan.reload().is_some_and(Reload::is_valid);
    let is_disturbed = faults.iter().any(|planned| {
        let may_prevent = matches!(planned.fault, Fault::DescriptorsExhausted | Fault::DiskReadOnly);
        may_prevent && planned.at <= reload.at + promise(reload.fault) && reload.at <= planned.ends()
    });
    match is_valid {
        false => Some(false),
        true => (!is_disturbed).then_some(true),
    }
}

fn reload_has_outcome(bench: &mut Bench, reload: Reload, expected: Option<bool>) -> Result<(), String> {
    const ACTIVE: &str = "reload: the new configuration is active";
    const REJECTED: &str = "reload rejected, the old configuration stays active";
    let deadline = Instant::now() + START;
    loop {
        let log = bench.affectd.log();
        let (active, rejected) = (log.contains(ACTIVE), log.contains(REJECTED));
        if active || rejected {
            return match expected {
                Some(expected) if expected != active => {
                    Err(format!("{reload:?}: active is {active}, and should be {expected}"))
                }
                _ => Ok(()),
            };
        }
        if Instant::now() > deadline {
            return Err(format!("{reload:?}: SIGHUP has no outcome in the log"));
        }
        bench.pump();
    }
}

/// Waits until affectd holds no more than before. Returns the growth of its memory.
fn resources_are_flat(bench: &mut Bench, before: Resources, reload: Option<Reload>) -> Result<i64, String> {
    let added = usize::from(reload == Some(Reload::AddFile));
    let deadline = Instant::now() + MARGIN;
    loop {
        let after = bench.affectd.resources();
        let is_flat = after.descriptors <= before.descriptors + added
            && after.threads <= before.threads + added as u64
            && after.memory_kib <= before.memory_kib + MEMORY_GROWTH_KIB + memory_of(reload);
        if is_flat {
            return Ok(after.memory_kib.cast_signed() - before.memory_kib.cast_signed());
        }
        if Instant::now() > deadline {
            return Err(format!(
                "affectd holds more than before the faults: {before:?}, then {after:?}"
            ));
        }
        bench.pump();
    }
}

/// What a reload may add to the memory, in KiB: while it loads the models, both sets are there, and the allocator keeps some.
fn memory_of(reload: Option<Reload>) -> u64 {
    match reload {
        Some(Reload::Smoothing | Reload::Rate) => 24 << 10,
        _ => 0,
    }
}

/// Checks everything that was received. Returns how many estimates affectd counted as dropped.
fn check(plan: &Plan, ending: Ending, bench: &mut Bench, status: ExitStatus) -> Result<u64, String> {
    let log = bench.affectd.log();
    let broker_is_away = matches!(ending, Ending::During(fault) if fault.target() == Target::Broker);
    let undelivered = number_before(&log, " estimates were not delivered").unwrap_or(0);
    match status.code() {
        Some(0) => {}
        Some(5) if broker_is_away && undelivered > 0 => {}
        _ => return Err(format!("affectd ended with {status}")),
    }
    if log.contains("panicked") || log.contains("this is a bug") {
        return Err("the log reports a bug".into());
    }
    let log_lines = log.lines().count();
    if log_lines > MAX_LOG_LINES {
        return Err(format!("{log_lines} lines in the log"));
    }

    let control = bench.control();
    let made = is_complete(&control, &log)?;
    bench.finish(made.len().saturating_sub(undelivered as usize));
    times_are_right(plan, &control)?;
    if plan.input != Input::Absent {
        modalities_are_right(plan, &control)?;
    }

    let disk = lines_in(&bench.path("disk"), "affect.jsonl");
    let (mut missing, mut allowed, mut gaps) = (0, 0, String::new());
    for (name, lines) in [
        ("stdout", &bench.stdout_lines),
        ("serial", &bench.serial),
        ("file", &disk),
    ] {
        if !lines.invalid.is_empty() {
            return Err(format!("{name}: invalid lines: {:?}", lines.invalid));
        }
        let arrived: Vec<u64> = lines.seqs().collect();
        missing += missing_in(name, &arrived, &made)?;
        allowed += uncounted(name, ending, bench.lost_in_port);
        let arrived = arrived.into_iter().collect();
        let _ = write!(gaps, " {name}: {:?}", made.difference(&arrived).collect::<Vec<_>>());
    }
    let mqtt = first_arrivals(&bench.mqtt_seqs);
    let missing_mqtt = missing_in("mqtt", &mqtt, &made)?;
    let may_miss = if broker_is_away { undelivered } else { 0 };
    if missing_mqtt > may_miss {
        return Err(format!(
            "mqtt: {missing_mqtt} estimates are missing, and {may_miss} may be: {:?}",
            made.difference(&bench.mqtt_set()).collect::<Vec<_>>()
        ));
    }
    let dropped = number_after(&log, "dropped estimates: ").unwrap_or(0);
    // A message of the broker that it received, but did not acknowledge, is undelivered, too.
    if missing > dropped.saturating_sub(undelivered) + allowed {
        return Err(format!(
            "{missing} estimates are missing in stdout, serial and file together, but only {dropped} are counted \
             ({allowed} more may be in flight):{gaps}"
        ));
    }
    if dropped > missing + undelivered {
        return Err(format!(
            "{dropped} estimates are counted as dropped, but only {missing} are missing"
        ));
    }
    if plan.reload() == Some(Reload::AddFile) && plan.input == Input::Absent {
        let added: Vec<u64> = lines_of(&bench.path("added.jsonl")).seqs().collect();
        let from = added.first().copied().unwrap_or(u64::MAX);
        if added != made.range(from..).copied().collect::<Vec<_>>() {
            return Err(format!("the added file has gaps: {added:?}"));
        }
    }
    Ok(dropped)
}

/// Estimates that an output may lose without a count: what was under way when its reader went away.
fn uncounted(name: &str, ending: Ending, lost_in_port: u64) -> u64 {
    match (name, ending) {
        // What is in the port's buffer.
        ("serial", Ending::During(Fault::SerialStuck)) => lost_in_port + 40,
        ("serial", _) => lost_in_port,
        _ => 0,
    }
}

/// The numbers in the file that no fault hits. Each gap must be in the log.
fn is_complete(control: &Lines, log: &str) -> Result<BTreeSet<u64>, String> {
    if !control.invalid.is_empty() {
        return Err(format!("control file: invalid lines: {:?}", control.invalid));
    }
    let seqs: Vec<u64> = control.seqs().collect();
    if !seqs.is_sorted_by(|a, b| a < b) || seqs.first() != Some(&1) {
        return Err(format!("control file: not in order: {seqs:?}"));
    }
    let missing = control.last() - seqs.len() as u64;
    let left_out = number_after(log, "estimates left out: ").unwrap_or(0);
    // The last ones leave no gap if the end came before the next estimate.
    let last = log.rsplit_once(" estimates are left out").map_or(0, |(before, _)| {
        let number = before.rsplit(' ').next().and_then(|number| number.parse().ok());
        number.expect("the log states a number")
    });
    if missing != left_out && missing + last != left_out {
        return Err(format!(
            "control file: {missing} estimates are missing, and affectd counts {left_out} as left out: {seqs:?}"
        ));
    }
    Ok(seqs.into_iter().collect())
}

/// How many of the estimates that were made did not arrive. What arrived must be in order, without repetition.
fn missing_in(name: &str, arrived: &[u64], made: &BTreeSet<u64>) -> Result<u64, String> {
    if !arrived.is_sorted_by(|a, b| a < b) {
        return Err(format!("{name}: not in order: {arrived:?}"));
    }
    if let Some(foreign) = arrived.iter().find(|number| !made.contains(number)) {
        return Err(format!("{name}: number {foreign} was never made"));
    }
    Ok((made.len() - arrived.len()) as u64)
}

/// The first arrival of each number.
fn first_arrivals(numbers: &[u64]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    numbers.iter().copied().filter(|number| seen.insert(*number)).collect()
}

/// `t` grows, and the time of day follows a step of the clock.
fn times_are_right(plan: &Plan, control: &Lines) -> Result<(), String> {
    let times: Vec<f64> = control.estimates.iter().filter_map(|line| line["t"].as_f64()).collect();
    if !times.is_sorted_by(|a, b| a < b) || times.len() != control.estimates.len() {
        return Err(format!("t does not grow: {times:?}"));
    }
    let steps = plan.has(|fault| matches!(fault, Fault::ClockForwards | Fault::ClockBackwards));
    let without_time = control.estimates.iter().any(|line| line["time"].is_null());
    if !steps || without_time {
        return match steps {
            true => Err("the clock is synchronized, and an estimate has no time of day".into()),
            false => Ok(()),
        };
    }
    let hour = |line: &Value| {
        line["time"]
            .as_str()
            .and_then(|time| time.get(11..13)?.parse::<i32>().ok())
    };
    let (first, last) = (
        control.estimates.first().and_then(hour),
        control.estimates.last().and_then(hour),
    );
    match first == last {
        true => Err(format!("the time of day does not follow the clock: hour {first:?}")),
        false => Ok(()),
    }
}

/// Damaged frames do not disturb the sound, and a face is seen after them.
fn modalities_are_right(plan: &Plan, control: &Lines) -> Result<(), String> {
    let (from, until) = match plan.input {
        Input::DamagedClip { from, until } => (from.as_secs_f64(), until.as_secs_f64()),
        Input::Absent | Input::Clip => (0.0, 0.0),
    };
    let between = |from: f64, until: f64| {
        let times = from..until;
        control
            .estimates
            .iter()
            .filter(move |line| line["t"].as_f64().is_some_and(|t| times.contains(&t)))
    };
    // A sound that comes too late on a busy machine is missing in single estimates.
    let mut during = between(from, until).peekable();
    if during.peek().is_some() && !during.any(|line| line["voice"].is_object()) {
        return Err("no sound is heard while frames are damaged".into());
    }
    // The demo clip, which is repeated, shows a face in the first six of its ten seconds.
    let shows_face = |line: &&Value| line["t"].as_f64().is_some_and(|t| (0.5..5.8).contains(&(t % 10.0)));
    let mut after = between(until + 0.5, f64::INFINITY).filter(shows_face).peekable();
    match after.peek().is_none() || after.any(|line| line["face"].is_object()) {
        true => Ok(()),
        false => Err("no face is seen after the damaged frames".into()),
    }
}

/// The number before `words`.
fn number_before(text: &str, words: &str) -> Option<u64> {
    text.split(words)
        .next()
        .filter(|before| before.len() < text.len())?
        .rsplit(' ')
        .next()?
        .parse()
        .ok()
}

/// The number after the last `words`.
fn number_after(text: &str, words: &str) -> Option<u64> {
    let (_, after) = text.rsplit_once(words)?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
