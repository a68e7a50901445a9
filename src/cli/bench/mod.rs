//! `affectd bench`: the speed of the graphs and of the whole pipeline on this machine.

mod graphs;
mod pipeline;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use log::warn;
use serde::Serialize;

use crate::capture::clip::Clip;
use crate::cli::error::CommandError;
use crate::cli::progress::ProgressLine;
use crate::config::Config;
use crate::model::int8::operators::kernels::peak::{self, Peak};
use crate::model::{Bundle, KernelChoice};
use crate::printable::printable_json;

use graphs::GraphReport;
use pipeline::PipelineReport;

/// The result of `affectd bench`; also its JSON form.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The peak throughput of one core in 8 bits; `None` without int8 kernels for this processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak: Option<PeakReport>,
    graphs: Vec<GraphReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<PipelineReport>,
}

#[derive(Debug, Serialize)]
struct PeakReport {
    instructions: &'static str,
    macs_per_s: f64,
}

impl PeakReport {
    fn measure() -> Option<PeakReport> {
        let Peak {
            instructions,
            macs_per_s,
        } = peak::measure()?;
        Some(PeakReport {
            instructions,
            macs_per_s,
        })
    }
}

/// Measures the models, and the pipeline on `clip` or else on the demo clip, where that is installed. Runs each graph `runs`
/// times, or for a second.
pub fn models(config: &Config, clip: Option<&Path>, runs: Option<usize>) -> Result<Report, CommandError> {
    let mut line = ProgressLine::on_stderr();
    let bundle = Bundle::open(config.models.as_deref(), config.kernel)?;
    let pipeline = match clip.map(Path::to_path_buf).or_else(demo_clip) {
        Some(path) => {
            let clip = Clip::open(&path)?;
            // The pipeline goes first, so that its peak memory does not include the single graphs.
            Some(pipeline::measure(config, &bundle, clip, &mut line)?)
        }
        None => {
            warn!("bench: the pipeline is not measured: demo.mkv is not installed: give a clip with --input CLIP");
            None
        }
    };
    // The time left is that of the graphs.
    drop(line);
    Ok(Report {
        peak: PeakReport::measure(),
        graphs: graphs::of_bundle(&bundle, runs, &mut ProgressLine::on_stderr())?,
        pipeline,
    })
}

/// The demo clip of an installed package, `PREFIX/share/affectd/demo.mkv`, or of the checkout that this program was built in.
fn demo_clip() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folders = program.ancestors().skip(1);
    let checkout = |folder: &Path| {
        folder
            .ends_with("target")
            .then(|| folder.with_file_name("models/demo.mkv"))
    };
    let mut places: Vec<PathBuf> = folders.clone().filter_map(checkout).collect();
    places.extend(
        folders
            .skip(1)
            .take(1)
            .map(|prefix| prefix.join("share/affectd/demo.mkv")),
    );
    // This program may be a copy of an installed one.
    places.extend(["/usr/share/affectd/demo.mkv", "/usr/local/share/affectd/demo.mkv"].map(PathBuf::from));
    places.into_iter().find(|place| place.is_file())
}

/// Measures the graph in one file.
pub fn file(path: &Path, kernel: KernelChoice, runs: Option<usize>) -> Result<Report, CommandError> {
    Ok(Report {
        peak: PeakReport::measure(),
        graphs: vec![graphs::of_file(path, kernel, runs, &mut ProgressLine::on_stderr())?],
        pipeline: None,
    })
}

impl Report {
    /// A table, or one JSON object.
    pub fn text(&self, json: bool) -> String {
        if json {
            return printable_json(&serde_json::to_string(self).expect("numbers and strings serialize")) + "\n";
        }
        let peak = self.peak.as_ref().map(|peak| peak.macs_per_s);
        let mut text = graphs::table(&self.graphs, peak);
        // Writing into a string cannot fail.
        if let Some(peak) = &self.peak {
            let _ = writeln!(
                text,
                "peak of one core in 8 bits: {:.1} GMAC/s ({})",
                peak.macs_per_s / 1e9,
                peak.instructions
            );
        }
        if let Some(pipeline) = &self.pipeline {
            let _ = writeln!(text, "\n{pipeline}");
        }
        text
    }
}
