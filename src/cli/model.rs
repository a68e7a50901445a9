//! `affectd model`: the model card.

use crate::model::{Bundle, GraphName, ModelError};
use crate::printable::printable;

/// The limits of any model bundle, whatever its figures.
const LIMITS: &str = "\
Limits: the models do not know how a person feels. They estimate how other people would label a face and a voice. They
were trained on actors, and on photographs that strangers labelled. Other ages, skin tones, languages and cultures are not
covered. Do not use the estimates to make decisions about a person. In the EU, inferring emotions at work and in education
is prohibited (AI Act, Article 5(1)(f)).";

/// The card of `bundle`. The hash of each graph is checked.
pub fn card(bundle: &Bundle) -> Result<String, ModelError> {
    let manifest = bundle.manifest();
    let mut lines = vec![format!("{} {}, {}", manifest.name, manifest.version, bundle.location())];
    for name in GraphName::ALL {
        let graph = bundle.graph(name)?;
        let bytes = bundle.read(name)?;
        lines.push(String::new());
        lines.push(format!("{name} {}", graph.version));
        lines.push(format!(
            "  file     {} ({} KB, SHA-256 {})",
            graph.file,
            bytes.len().div_ceil(1000),
            graph.sha256
        ));
        lines.push(format!(
            "  cost     {:.1} million multiply-accumulates",
            graph.macs as f64 / 1e6
        ));
        lines.push(format!("  source   {}", graph.source));
        lines.push(format!("  licence  {}", graph.licence));
        for on_split in graph.figures.chunk_by(|a, b| a.split == b.split) {
            lines.push(format!(
                "  figures  on {}, by {}",
                on_split[0].split, on_split[0].command
            ));
            for figure in on_split {
                lines.push(format!("           {:>8}  {}", figure.value.to_string(), figure.name));
            }
        }
    }
    // The manifest of a folder is text from outside.
    let card: String = lines.iter().map(|line| printable(line) + "\n").collect();
    Ok(format!("{card}\n{LIMITS}\n"))
}
