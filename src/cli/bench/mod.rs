//! `affectd bench`: how fast the graphs and the whole pipeline are on this machine.

mod graphs;
mod pipeline;

use std::path::Path;

use serde::Serialize;

use crate::capture::clip::Clip;
use crate::config::Config;
use crate::failure::Failure;
use crate::model::Bundle;
use crate::model::int8::kernels::peak::{self, Peak};

use graphs::GraphReport;
use pipeline::PipelineReport;

/// The clip that ships with the models.
const DEMO: &str = "demo.mkv";

#[derive(Debug, Serialize)]
pub struct Report {
    /// What one processor could do in eight bits, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak: Option<PeakReport>,
    graphs: Vec<GraphReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<PipelineReport>,
}

#[derive(Debug, Serialize)]
struct PeakReport {
    by: &'static str,
    macs_per_s: f64,
}

impl PeakReport {
    fn measure() -> Option<PeakReport> {
        peak::measure().map(|Peak { by, macs_per_s }| PeakReport { by, macs_per_s })
    }
}

/// Measures the models and the pipeline that `config` names. `runs` of each graph, or for a second.
pub fn models(config: &Config, runs: Option<usize>) -> Result<Report, Failure> {
    let bundle = Bundle::open(config.models.as_deref())?;
    let demo = Clip::open(&bundle.folder().join(DEMO)).map_err(|e| Failure::Source(e.to_string()))?;
    // The pipeline goes first: the most memory held is to be its own.
    let pipeline = pipeline::measure(config, &bundle, demo)?;
    Ok(Report {
        peak: PeakReport::measure(),
        graphs: graphs::of_bundle(&bundle, runs)?,
        pipeline: Some(pipeline),
    })
}

/// Measures the graph in one file.
pub fn file(path: &Path, runs: Option<usize>) -> Result<Report, Failure> {
    Ok(Report {
        peak: PeakReport::measure(),
        graphs: vec![graphs::of_file(path, runs)?],
        pipeline: None,
    })
}

impl Report {
    pub fn print(&self, json: bool) {
        if json {
            println!(
                "{}",
                serde_json::to_string(self).expect("numbers and strings serialize")
            );
            return;
        }
        let peak = self.peak.as_ref().map(|peak| peak.macs_per_s);
        graphs::print(&self.graphs, peak);
        if let Some(peak) = &self.peak {
            println!(
                "peak: {:.1} GMAC/s in eight bits, by {}",
                peak.macs_per_s / 1e9,
                peak.by
            );
        }
        if let Some(pipeline) = &self.pipeline {
            println!("\n{pipeline}");
        }
    }
}
