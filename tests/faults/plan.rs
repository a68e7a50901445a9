//! What happens in one seed, and when. The plan follows from the seed alone.

use std::fmt;
use std::time::Duration;

use super::random::Random;

/// The faults of a seed begin and end within this time.
const LONGEST: Duration = Duration::from_millis(7_500);

/// Where the frames and the sound come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// No device is there. affectd waits for them, and its estimates are null. It can reload.
    Absent,
    /// A clip in real time. affectd rejects reloads.
    Clip,
    /// The same, with damaged frames between two times of the clip.
    DamagedClip { from: Duration, until: Duration },
}

/// One fault. Those with a duration end again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a restart on the same port.
    BrokerKilled,
    /// SIGSTOP: the kernel accepts what is sent, and nobody answers.
    BrokerFrozen,
    /// Packets in both directions vanish.
    BrokerUnreachable,
    /// The broker rejects the password.
    BrokerRefuses,
    /// 300 bytes a second, less than the estimates need.
    BrokerSlow,
    /// The broker and the password file get a new password, and affectd is told by SIGHUP.
    PasswordRotated,
    SerialGone,
    /// Nobody reads the line.
    SerialStuck,
    /// The peer sends commands and noise without a pause.
    SerialTalkative,
    DiskFull,
    /// The file is renamed at the same time, so not even a part of a line fits.
    DiskFullForNewFiles,
    /// The folder of the file is replaced by an empty one that is read-only.
    DiskReadOnly,
    FileRotated,
    FileDeleted,
    /// Nobody reads standard output, and the pipe is full.
    StdoutStuck,
    /// SIGSTOP for affectd.
    ProcessStopped,
    /// affectd runs for a fifth of the time.
    ProcessorLimited,
    /// affectd cannot open any more descriptors.
    DescriptorsExhausted,
    /// The time of day jumps by an hour.
    ClockForwards,
    ClockBackwards,
    Reload(Reload),
}

/// What changes in the configuration before SIGHUP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    AddFile,
    Smoothing,
    SerialBaud,
    MqttSpool,
    Rate,
    Microphone,
    SyntaxError,
    UnknownKey,
    UnusableOutput,
    InvalidRate,
}

impl Reload {
    pub fn is_valid(self) -> bool {
        !matches!(
            self,
            Reload::SyntaxError | Reload::UnknownKey | Reload::UnusableOutput | Reload::InvalidRate
        )
    }
}

/// What a fault hits. Two faults of one target do not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Broker,
    Serial,
    Disk,
    Stdout,
    Process,
    Clock,
    Configuration,
}

impl Fault {
    pub fn target(self) -> Target {
        match self {
            Fault::BrokerKilled
            | Fault::BrokerFrozen
            | Fault::BrokerUnreachable
            | Fault::BrokerRefuses
            | Fault::BrokerSlow
            | Fault::PasswordRotated => Target::Broker,
            Fault::SerialGone | Fault::SerialStuck | Fault::SerialTalkative => Target::Serial,
            Fault::DiskFull
            | Fault::DiskFullForNewFiles
            | Fault::DiskReadOnly
            | Fault::FileRotated
            | Fault::FileDeleted => Target::Disk,
            Fault::StdoutStuck => Target::Stdout,
            Fault::ProcessStopped | Fault::ProcessorLimited | Fault::DescriptorsExhausted => Target::Process,
            Fault::ClockForwards | Fault::ClockBackwards => Target::Clock,
            Fault::Reload(_) => Target::Configuration,
        }
    }

    /// Whether the fault is over as soon as it has begun.
    fn is_instant(self) -> bool {
        matches!(
            self,
            Fault::PasswordRotated
                | Fault::FileRotated
                | Fault::FileDeleted
                | Fault::ClockForwards
                | Fault::ClockBackwards
                | Fault::Reload(_)
        )
    }

    /// Whether an unprivileged test cannot cause it.
    pub fn needs_root(self) -> bool {
        matches!(self, Fault::DiskFull | Fault::DiskFullForNewFiles | Fault::DiskReadOnly)
    }
}

const RELOADS: &[Reload] = &[
    Reload::AddFile,
    Reload::Smoothing,
    Reload::SerialBaud,
    Reload::MqttSpool,
    Reload::Rate,
    Reload::Microphone,
    Reload::SyntaxError,
    Reload::UnknownKey,
    Reload::UnusableOutput,
    Reload::InvalidRate,
];

/// A fault with its time, counted from the moment when all outputs work.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    pub fault: Fault,
    pub at: Duration,
    pub lasts: Duration,
}

impl Planned {
    pub fn ends(&self) -> Duration {
        self.at + self.lasts
    }
}

/// How affectd is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// After all faults are over.
    Recovered,
    /// While this fault lasts.
    During(Fault),
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub input: Input,
    pub rate_hz: f32,
    pub discovery: bool,
    pub faults: Vec<Planned>,
    pub ending: Ending,
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let mut random = Random::new(seed);
        let input = match random.below(10) {
            0..6 => Input::Absent,
            6..8 => Input::Clip,
            _ => {
                let from = random.millis(3_000..6_000);
                Input::DamagedClip {
                    from,
                    until: from + random.millis(1_000..3_000),
                }
            }
        };
        let rate_hz = random.pick(&[5.0, 5.0, 2.5, 10.0]);
        let discovery = random.chance(30);
        let mut faults = Vec::new();
        while faults.len() < 2 {
            faults.clear();
            for (chance, choices) in Plan::choices(input, &mut random) {
                if random.chance(chance) {
                    let at = random.millis(0..2_500);
                    Plan::add(&mut faults, at, choices, &mut random);
                    if random.chance(25) {
                        let at = random.millis(4_800..6_000);
                        Plan::add(&mut faults, at, choices, &mut random);
                    }
                }
            }
        }
        if random.chance(50) {
            let (reload, at) = (random.pick(RELOADS), random.millis(0..6_000));
            // An output for MQTT that is replaced while its broker is away does not hand its waiting estimates over.
            let replaces_mqtt = matches!(reload, Reload::MqttSpool | Reload::Rate);
            let broker_fails = faults.iter().any(|planned| planned.fault.target() == Target::Broker);
            if !(replaces_mqtt && broker_fails) {
                let (fault, lasts) = (Fault::Reload(reload), Duration::ZERO);
                faults.push(Planned { fault, at, lasts });
            }
        }
        faults.sort_by_key(|planned| planned.at);
        let last = [
            Fault::StdoutStuck,
            Fault::SerialStuck,
            Fault::SerialGone,
            Fault::SerialTalkative,
            Fault::BrokerFrozen,
            Fault::BrokerKilled,
            Fault::BrokerUnreachable,
            Fault::DiskFull,
            Fault::DiskReadOnly,
            Fault::DescriptorsExhausted,
            Fault::ProcessorLimited,
        ];
        let ending = match random.chance(35) {
            true => Ending::During(random.pick(&last)),
            false => Ending::Recovered,
        };
        Plan {
            seed,
            input,
            rate_hz,
            discovery,
            faults,
            ending,
        }
    }

    /// For each target, how often a seed has its faults, in percent, and which.
    fn choices(input: Input, random: &mut Random) -> Vec<(u64, &'static [Fault])> {
        const BROKER: &[Fault] = &[
            Fault::BrokerKilled,
            Fault::BrokerFrozen,
            Fault::BrokerUnreachable,
            Fault::BrokerRefuses,
            Fault::BrokerSlow,
        ];
        const SERIAL: &[Fault] = &[Fault::SerialGone, Fault::SerialStuck, Fault::SerialTalkative];
        const DISK: &[Fault] = &[
            Fault::DiskFull,
            Fault::DiskFullForNewFiles,
            Fault::DiskReadOnly,
            Fault::FileRotated,
            Fault::FileDeleted,
        ];
        const PROCESS: &[Fault] = &[
            Fault::ProcessStopped,
            Fault::ProcessorLimited,
            Fault::DescriptorsExhausted,
        ];
        const CLOCK: &[Fault] = &[Fault::ClockForwards, Fault::ClockBackwards];
        let mut choices = vec![
            (45, SERIAL),
            (45, DISK),
            (25, &[Fault::StdoutStuck] as &[_]),
            (35, PROCESS),
            (15, CLOCK),
        ];
        match (input, random.below(4)) {
            // A password that a reload announces, and no other fault of the broker.
            (Input::Absent, 0) => choices.push((100, &[Fault::PasswordRotated])),
            _ => choices.push((65, BROKER)),
        }
        choices
    }

    fn add(faults: &mut Vec<Planned>, at: Duration, choices: &[Fault], random: &mut Random) {
        let fault = random.pick(choices);
        let lasts = match fault.is_instant() {
            true => Duration::ZERO,
            false => random.millis(300..3_500).min(LONGEST.saturating_sub(at)),
        };
        let target = fault.target();
        let follows = |planned: &Planned| planned.fault.target() != target || planned.ends() < at;
        if faults.iter().all(follows) {
            faults.push(Planned { fault, at, lasts });
        }
    }

    pub fn has(&self, wanted: impl Fn(Fault) -> bool) -> bool {
        let last = match self.ending {
            Ending::During(fault) => Some(fault),
            Ending::Recovered => None,
        };
        self.faults.iter().map(|planned| planned.fault).chain(last).any(wanted)
    }

    /// The configuration change of this plan, if it has one.
    pub fn reload(&self) -> Option<Reload> {
        self.faults.iter().find_map(|planned| match planned.fault {
            Fault::Reload(reload) => Some(reload),
            _ => None,
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: input {:?}, {} estimates a second, discovery {}",
            self.seed, self.input, self.rate_hz, self.discovery
        )?;
        for Planned { fault, at, lasts } in &self.faults {
            write!(f, "  {:5.2} s  {fault:?}", at.as_secs_f32())?;
            match lasts.is_zero() {
                true => writeln!(f)?,
                false => writeln!(f, " for {:.2} s", lasts.as_secs_f32())?,
            }
        }
        write!(f, "  end: {:?}", self.ending)
    }
}
