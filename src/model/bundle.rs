//! A model bundle: a folder with `manifest.json` and the graphs it names.
//!
//! The manifest carries the hash of every graph, so a bundle that was half copied, edited or mixed from two versions is
//! refused at start instead of giving numbers that mean nothing. It also carries the constants of the preprocessing a
//! graph was trained with, so that a retrained graph needs no new binary.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The manifest format this version reads. A bundle says which it was written for.
pub const FORMAT: u32 = 1;

/// Why a bundle or one of its graphs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(
        "models: no manifest.json in any of {}: give the folder with --models DIR or AFFECTD_MODELS",
        list(.searched)
    )]
    NotFound { searched: Vec<PathBuf> },
    #[error("{}: cannot be read ({reason}): restore the file from the release or check its permissions", .path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{}: not a model manifest ({reason}): restore the file from the release", .path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("{}: written in manifest format {found}, this affectd reads up to {FORMAT}: update affectd, or use the models of its release", .path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("{}: does not match the manifest (SHA-256 {found:.12}…, expected {expected:.12}…): restore the file from the release, or register the new graph in manifest.json", .path.display())]
    Altered {
        path: PathBuf,
        found: String,
        expected: String,
    },
    #[error("{}: has no {graph}: use the models of this affectd's release", .path.display())]
    Lacks { path: PathBuf, graph: GraphName },
    /// A graph that is no part of a bundle.
    #[error("{}: {reason}", .path.display())]
    Foreign { path: PathBuf, reason: String },
    #[error("{graph}: {reason}: use the models of this affectd's release")]
    Unfit { graph: GraphName, reason: String },
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    shown.join(", ")
}

/// The four graphs of a bundle, each for one step of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphName {
    FaceDetector,
    FaceEncoder,
    VoiceEncoder,
    Fusion,
}

impl GraphName {
    pub const ALL: [GraphName; 4] = [
        GraphName::FaceDetector,
        GraphName::FaceEncoder,
        GraphName::VoiceEncoder,
        GraphName::Fusion,
    ];

    /// The key in the manifest.
    pub fn key(self) -> &'static str {
        match self {
            GraphName::FaceDetector => "face_detector",
            GraphName::FaceEncoder => "face_encoder",
            GraphName::VoiceEncoder => "voice_encoder",
            GraphName::Fusion => "fusion",
        }
    }
}

impl fmt::Display for GraphName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// `manifest.json`. Fields that only the training scripts read are left out.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    graphs: BTreeMap<String, Graph>,
}

/// One graph's entry.
#[derive(Debug, Clone, Deserialize)]
pub struct Graph {
    /// File name inside the bundle.
    pub file: String,
    pub sha256: String,
    pub version: String,
    /// Name → shape, all `f32`.
    pub inputs: BTreeMap<String, Vec<usize>>,
    pub outputs: BTreeMap<String, Vec<usize>>,
    /// Constants of what goes on before (and after) the graph; each stage reads its own.
    #[serde(default)]
    pub preprocessing: serde_json::Value,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    pub licence: String,
    /// Who made the weights, and from what.
    pub source: String,
    #[serde(default)]
    pub figures: Vec<Figure>,
}

/// One measured number and where it comes from.
#[derive(Debug, Clone, Deserialize)]
pub struct Figure {
    pub name: String,
    pub value: serde_json::Value,
    #[serde(default)]
    pub split: String,
    #[serde(default)]
    pub command: String,
}

/// An opened bundle. Graph files are read, and their hashes checked, one by one as they are asked for.
#[derive(Debug)]
pub struct Bundle {
    folder: PathBuf,
    manifest: Manifest,
}

impl Bundle {
    /// Opens the bundle in `folder`, or in the first of [`Bundle::usual_places`] that has one.
    pub fn open(folder: Option<&Path>) -> Result<Bundle, ModelError> {
        let places = folder.map_or_else(Bundle::usual_places, |f| vec![f.to_path_buf()]);
        match places.iter().find(|p| p.join("manifest.json").is_file()) {
            Some(found) => Bundle::open_in(found),
            None => Err(ModelError::NotFound { searched: places }),
        }
    }

    /// Where an installed binary, and one in a Cargo target folder, find their models.
    fn usual_places() -> Vec<PathBuf> {
        let exe = std::env::current_exe().unwrap_or_default();
        let beside = exe.ancestors().skip(1);
        let mut places: Vec<_> = beside
            .clone()
            .take(1)
            .filter_map(|bin| bin.parent())
            .map(|prefix| prefix.join("share/affectd/models"))
            .collect();
        // A build's own models go before installed ones: target/release/affectd, target/<triple>/release/affectd and
        // target/release/deps/<test>.
        places.extend(
            beside
                .filter(|dir| dir.ends_with("target"))
                .filter_map(|target| target.parent())
                .map(|root| root.join("models")),
        );
        places.push(PathBuf::from("/usr/share/affectd/models"));
        places
    }

    fn open_in(folder: &Path) -> Result<Bundle, ModelError> {
        let path = folder.join("manifest.json");
        let text = std::fs::read_to_string(&path).map_err(|e| ModelError::Unreadable {
            path: path.clone(),
            reason: e.to_string(),
        })?;
        let malformed = |e: serde_json::Error| ModelError::Malformed {
            path: path.clone(),
            reason: e.to_string(),
        };
        // The format comes first: a newer manifest need not parse as ours.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_str(&text).map_err(malformed)?;
        if format > FORMAT {
            return Err(ModelError::Newer { path, found: format });
        }
        let manifest = serde_json::from_str(&text).map_err(malformed)?;
        Ok(Bundle {
            folder: folder.to_path_buf(),
            manifest,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The entry of one graph.
    pub fn graph(&self, name: GraphName) -> Result<&Graph, ModelError> {
        self.manifest.graphs.get(name.key()).ok_or_else(|| ModelError::Lacks {
            path: self.folder.join("manifest.json"),
            graph: name,
        })
    }

    /// The bytes of one graph, equal to those that were registered.
    pub fn read(&self, name: GraphName) -> Result<Vec<u8>, ModelError> {
        let graph = self.graph(name)?;
        let path = self.folder.join(&graph.file);
        let bytes = std::fs::read(&path).map_err(|e| ModelError::Unreadable {
            path: path.clone(),
            reason: e.to_string(),
        })?;
        let found = Sha256::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>();
        if found != graph.sha256 {
            return Err(ModelError::Altered {
                path,
                found,
                expected: graph.sha256.clone(),
            });
        }
        Ok(bytes)
    }

    /// The preprocessing constants of one graph, as the stage that needs them spells them.
    pub fn preprocessing<T: serde::de::DeserializeOwned>(&self, name: GraphName) -> Result<T, ModelError> {
        serde_json::from_value(self.graph(name)?.preprocessing.clone()).map_err(|e| ModelError::Unfit {
            graph: name,
            reason: format!("preprocessing in the manifest: {e}"),
        })
    }
}
