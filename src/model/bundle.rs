//! A model bundle: `manifest.json` and the graphs it names. One is embedded in the program; a folder can replace it.
//!
//! The manifest holds the hash of every graph, so a bundle that is incomplete, edited or mixed from two versions is rejected at
//! start and cannot give meaningless numbers. It also holds the preprocessing constants that each graph was trained with, so
//! that a retrained graph needs no new program.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::int8::MAX_FILE_BYTES;
use super::kernel::KernelChoice;

/// The newest manifest format that this version reads. Every manifest names its format.
pub const FORMAT: u32 = 1;

const MANIFEST: &str = "manifest.json";

/// The largest manifest.
const MAX_MANIFEST_BYTES: u64 = 8 << 20;

/// Why a bundle or one of its graphs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(
        "{}: has no manifest.json: give the folder of a model bundle, or remove --models, AFFECTD_MODELS and `models` to use the embedded models",
        .folder.display()
    )]
    NotFound { folder: PathBuf },
    #[error("{}: cannot be read ({reason}): restore the file from the release or check its permissions", .path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{}: not a model manifest ({reason}): restore the file from the release", .path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("{}: written in manifest format {found}, this affectd reads up to {FORMAT}: update affectd, or use the models of its release", .path.display())]
    NewerFormat { path: PathBuf, found: u32 },
    #[error("{}: does not match the manifest (SHA-256 {found:.12}…, expected {expected:.12}…): restore the file from the release, or register the new graph in manifest.json", .path.display())]
    HashMismatch {
        path: PathBuf,
        found: String,
        expected: String,
    },
    #[error("{}: has no {graph}: use the models of this affectd's release", .path.display())]
    MissingGraph { path: PathBuf, graph: GraphName },
    /// A graph file outside of a bundle.
    #[error("{}: {reason}", .path.display())]
    File { path: PathBuf, reason: String },
    #[error("{graph}: {reason}: use the models of this affectd's release")]
    Unusable { graph: GraphName, reason: String },
}

/// The four graphs of a bundle, one per stage.
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

/// `manifest.json`, without the fields that only the training scripts read.
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
    /// Name and shape of each input; all are `f32`. The outputs likewise.
    pub inputs: BTreeMap<String, Vec<usize>>,
    pub outputs: BTreeMap<String, Vec<usize>>,
    /// Constants of the preprocessing and postprocessing. Each stage reads its own.
    #[serde(default)]
    pub preprocessing: serde_json::Value,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    pub licence: String,
    /// Who made the weights, and from which data.
    pub source: String,
    #[serde(default)]
    pub figures: Vec<Figure>,
}

/// One measured figure, and the command that measures it.
#[derive(Debug, Clone, Deserialize)]
pub struct Figure {
    pub name: String,
    pub value: serde_json::Value,
    #[serde(default)]
    pub split: String,
    #[serde(default)]
    pub command: String,
}

/// Where the graphs of a bundle are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Compiled into the program.
    Embedded,
    Folder(PathBuf),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Embedded => f.write_str("embedded in this program"),
            Location::Folder(folder) => write!(f, "in {}", folder.display()),
        }
    }
}

/// An opened bundle. The graphs of a folder are read one by one as they are needed, and their hashes checked.
#[derive(Debug)]
pub struct Bundle {
    location: Location,
    manifest: Manifest,
    kernel: KernelChoice,
}

impl Bundle {
    /// Opens the bundle in `folder`, or without one the models embedded in this program. `kernel` will run its graphs.
    pub fn open(folder: Option<&Path>, kernel: KernelChoice) -> Result<Bundle, ModelError> {
        let (location, path, text) = match folder {
            None => (
                Location::Embedded,
                PathBuf::from(MANIFEST),
                Cow::Borrowed(embedded::MANIFEST),
            ),
            Some(folder) => {
                let path = folder.join(MANIFEST);
                if !path.is_file() {
                    return Err(ModelError::NotFound {
                        folder: folder.to_path_buf(),
                    });
                }
                let unreadable = |reason: String| ModelError::Unreadable {
                    path: path.clone(),
                    reason,
                };
                let bytes = read_at_most(&path, MAX_MANIFEST_BYTES).map_err(|e| unreadable(e.to_string()))?;
                let text = String::from_utf8(bytes).map_err(|_| unreadable("not UTF-8".to_owned()))?;
                (Location::Folder(folder.to_path_buf()), path, Cow::Owned(text))
            }
        };
        let manifest = parse_manifest(&text, path)?;
        Ok(Bundle {
            location,
            manifest,
            kernel,
        })
    }

    /// A hash of the manifest in `folder`, which contains the hash of every graph. `None` if there is none, or without a folder.
    pub fn fingerprint(folder: Option<&Path>) -> Option<String> {
        let manifest = read_at_most(&folder?.join(MANIFEST), MAX_MANIFEST_BYTES).ok()?;
        Some(
            Sha256::digest(manifest)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }

    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The kernels that run the graphs.
    pub fn kernel(&self) -> KernelChoice {
        self.kernel
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The entry of one graph.
    pub fn graph(&self, name: GraphName) -> Result<&Graph, ModelError> {
        self.manifest
            .graphs
            .get(name.key())
            .ok_or_else(|| ModelError::MissingGraph {
                path: self.manifest_path(),
                graph: name,
            })
    }

    /// The bytes of one graph. Those from a folder have the hash that the manifest names.
    pub fn read(&self, name: GraphName) -> Result<Cow<'static, [u8]>, ModelError> {
        let graph = self.graph(name)?;
        let folder = match &self.location {
            Location::Embedded => return Ok(Cow::Borrowed(embedded::graph(name))),
            Location::Folder(folder) => folder,
        };
        let is_plain_name = Path::new(&graph.file)
            .file_name()
            .is_some_and(|name| *name == *graph.file);
        if !is_plain_name {
            return Err(ModelError::Malformed {
                path: self.manifest_path(),
                reason: format!(
                    "the file of {name} is {:?}, not the name of a file beside the manifest",
                    graph.file
                ),
            });
        }
        let path = folder.join(&graph.file);
        let bytes = read_bounded(&path).map_err(|e| ModelError::Unreadable {
            path: path.clone(),
            reason: e.to_string(),
        })?;
        let found = sha256(&bytes);
        if found != graph.sha256 {
            return Err(ModelError::HashMismatch {
                path,
                found,
                expected: graph.sha256.clone(),
            });
        }
        Ok(Cow::Owned(bytes))
    }

    /// The preprocessing constants of one graph, in the form that its stage defines.
    pub fn preprocessing<T: serde::de::DeserializeOwned>(&self, name: GraphName) -> Result<T, ModelError> {
        serde_json::from_value(self.graph(name)?.preprocessing.clone()).map_err(|e| ModelError::Unusable {
            graph: name,
            reason: format!("preprocessing in the manifest: {e}"),
        })
    }

    fn manifest_path(&self) -> PathBuf {
        match &self.location {
            Location::Embedded => PathBuf::from(MANIFEST),
            Location::Folder(folder) => folder.join(MANIFEST),
        }
    }
}

/// Reads a graph file, a regular file of at most [`MAX_FILE_BYTES`].
pub fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, MAX_FILE_BYTES as u64)
}

fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Before the file is opened, because to open a FIFO waits for a writer.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > limit {
        return Err(io::Error::other(format!("larger than {} MiB", limit >> 20)));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a manifest; `path` is for the error.
fn parse_manifest(text: &str, path: PathBuf) -> Result<Manifest, ModelError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let malformed = |e: serde_json::Error| ModelError::Malformed {
        path: path.clone(),
        reason: e.to_string(),
    };
    // The format comes first: a newer manifest need not have the fields of this one.
    let Format { format } = serde_json::from_str(text).map_err(malformed)?;
    if format > FORMAT {
        return Err(ModelError::NewerFormat { path, found: format });
    }
    serde_json::from_str(text).map_err(malformed)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The models of this release, compiled into the program, so that one copied file is enough.
mod embedded {
    use super::GraphName;

    pub const MANIFEST: &str = include_str!("../../models/manifest.json");

    pub fn graph(name: GraphName) -> &'static [u8] {
        match name {
            GraphName::FaceDetector => include_bytes!("../../models/face_detector.int8.onnx"),
            GraphName::FaceEncoder => include_bytes!("../../models/face_encoder.int8.onnx"),
            GraphName::VoiceEncoder => include_bytes!("../../models/voice_encoder.int8.onnx"),
            GraphName::Fusion => include_bytes!("../../models/fusion.int8.onnx"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_is_not_a_model_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert_eq!(read_bounded(&path).unwrap_err().to_string(), "not a regular file");
    }

    #[test]
    fn embedded_graphs_match_their_manifest() {
        let bundle = Bundle::open(None, KernelChoice::fastest()).unwrap();
        assert_eq!(bundle.location(), &Location::Embedded);
        for name in GraphName::ALL {
            assert_eq!(
                sha256(&bundle.read(name).unwrap()),
                bundle.graph(name).unwrap().sha256,
                "{name}"
            );
        }
    }
}
