//! `affectd bench`: how fast the graphs and the whole pipeline are on this machine.

mod graphs;
mod pipeline;

use std::path::Path;

use serde::Serialize;

use crate::capture::clip::Clip;
use crate::config::Config;
use crate::failure::Failure;
use crate::model::Bundle;

use graphs::GraphReport;
use pipeline::PipelineReport;

/// The clip that ships with the models.
const DEMO: &str = "demo.mkv";

#[derive(Debug, Serialize)]
pub struct Report {
    graphs: Vec<GraphReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<PipelineReport>,
}

/// Measures the models and the pipeline that `config` names. `runs` of each graph, or for a second.
pub fn models(config: &Config, runs: Option<usize>) -> Result<Report, Failure> {
    let bundle = Bundle::open(config.models.as_deref())?;
    let demo = Clip::open(&bundle.folder().join(DEMO)).map_err(|e| Failure::Source(e.to_string()))?;
    Ok(Report {
        graphs: graphs::of_bundle(&bundle, runs)?,
        pipeline: Some(pipeline::measure(config, &bundle, demo)?),
    })
}

/// Measures the graph in one file.
pub fn file(path: &Path, runs: Option<usize>) -> Result<Report, Failure> {
    Ok(Report {
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
        graphs::print(&self.graphs);
        if let Some(pipeline) = &self.pipeline {
            println!("\n{pipeline}");
        }
    }
}
