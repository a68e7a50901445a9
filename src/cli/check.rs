//! `affectd check`: what would stop `affectd run`, found before it does.

use crate::capture::clip::Clip;
use crate::config::{Config, Source};
use crate::face::FaceStage;
use crate::failure::Failure;
use crate::fusion::FusionStage;
use crate::model::{Bundle, ModelError};

/// Prints a line for each part; the first part that is not well decides the exit code, but all are looked at.
pub fn check(config: &Config) -> Result<(), Failure> {
    println!("ok   configuration");
    let mut first = None;
    let mut report = |part: &str, result: Result<String, Failure>| match result {
        Ok(what) => println!("ok   {part}: {what}"),
        Err(failure) => {
            println!("bad  {part}: {failure}");
            first.get_or_insert(failure);
        }
    };
    report("models", models(config).map_err(Failure::from));
    report("input", input(config));
    for output in &config.outputs {
        let checked = output.check().map_err(|e| Failure::Output(e.to_string()));
        report("output", checked.map(|()| output.to_string()));
    }
    first.map_or(Ok(()), Err)
}

fn models(config: &Config) -> Result<String, ModelError> {
    let bundle = Bundle::open(config.models.as_deref())?;
    FaceStage::load(&bundle, config.face)?;
    FusionStage::load(&bundle, config.fusion)?;
    let manifest = bundle.manifest();
    Ok(format!(
        "{} {} in {}",
        manifest.name,
        manifest.version,
        bundle.folder().display()
    ))
}

fn input(config: &Config) -> Result<String, Failure> {
    match &config.source {
        Source::Clip { path, .. } => Clip::open(path)
            .map(|clip| clip.description)
            .map_err(|e| Failure::Source(e.to_string())),
        Source::Devices => Err(Failure::Source(
            "none: this version reads clips only, give one with --input CLIP".into(),
        )),
    }
}
