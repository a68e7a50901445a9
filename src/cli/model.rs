//! `affectd model`: the model card.

use std::fmt::Write;

use crate::model::{Bundle, GraphName, ModelError};

/// The limits of any model bundle, whatever its figures.
const LIMITS: &str = "\
Limits: the models do not know how a person feels. They estimate how other people would label a face and a voice. They
were trained on actors, and on photographs that strangers labelled. Other ages, skin tones, languages and cultures are not
covered. Do not use the estimates to make decisions about a person. In the EU, inferring emotions at work and in education
is prohibited (AI Act, Article 5(1)(f)).";

/// The card of `bundle`. The hash of each graph is checked.
pub fn card(bundle: &Bundle) -> Result<String, ModelError> {
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
