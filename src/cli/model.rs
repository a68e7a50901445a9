//! `affectd model`: the model card.

use std::fmt::Write;

use crate::failure::Failure;
use crate::model::{Bundle, GraphName};

/// What the models cannot tell, whatever their figures: true of any bundle, so it is in the binary.
const LIMITS: &str = "\
What it cannot tell: how somebody feels. It estimates how a face and a voice would be labelled by others, learnt from
actors and from photographs labelled by strangers; ages, skin tones, languages and cultures outside those are not covered.
Do not decide anything about a person by it. In the EU, inferring emotions at work and in education is forbidden (AI Act,
Article 5(1)(f)).";

/// The card of the bundle in use, each graph's hash checked.
pub fn card(bundle: &Bundle) -> Result<String, Failure> {
    let manifest = bundle.manifest();
    let mut card = String::new();
    // Writing into a string cannot fail.
    let _ = writeln!(card, "{} {}, {}", manifest.name, manifest.version, bundle.location());
    for name in GraphName::ALL {
        let graph = bundle.graph(name)?;
        let bytes = bundle.read(name)?;
        let _ = writeln!(card, "\n{name} {}", graph.version);
        let _ = writeln!(
            card,
            "  file     {} ({} KB, SHA-256 {})",
            graph.file,
            bytes.len().div_ceil(1000),
            graph.sha256
        );
        let _ = writeln!(
            card,
            "  cost     {:.1} million multiply-accumulates",
            graph.macs as f64 / 1e6
        );
        let _ = writeln!(card, "  source   {}", graph.source);
        let _ = writeln!(card, "  licence  {}", graph.licence);
        for on_split in graph.figures.chunk_by(|a, b| a.split == b.split) {
            let _ = writeln!(card, "  figures  on {}, by {}", on_split[0].split, on_split[0].command);
            for figure in on_split {
                let _ = writeln!(card, "           {:>8}  {}", figure.value.to_string(), figure.name);
            }
        }
    }
    let _ = writeln!(card, "\n{LIMITS}");
    Ok(card)
}
