//! The cameras there are.

use std::path::{Path, PathBuf};

use serde::Serialize;
use v4l::FourCC;

use super::negotiate::{self, Encoding, Mode, RequestedMode};
use super::node::name;
use super::open_node;
use crate::capture::CaptureError;

/// One camera, as `affectd devices` tells of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CameraInfo {
    /// What to put into the configuration: a name that stays with the camera, if there is one.
    pub device: String,
    pub node: String,
    pub card: String,
    pub driver: String,
    /// What affectd can ask of it.
    pub modes: Vec<ModeInfo>,
    /// Formats it has and affectd does not read.
    pub unread: Vec<String>,
    /// Why it cannot be used now, if it cannot.
    pub problem: Option<String>,
    /// `device = "auto"` would take this one.
    pub auto: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModeInfo {
    pub format: String,
    pub width: u32,
    pub height: u32,
    /// The most pictures a second; null where the driver does not say.
    pub rate_hz: Option<f64>,
}

impl From<&Mode> for ModeInfo {
    fn from(mode: &Mode) -> ModeInfo {
        ModeInfo {
            format: name(mode.fourcc),
            width: mode.width,
            height: mode.height,
            rate_hz: mode.rate_hz,
        }
    }
}

/// The video nodes, in the order of their numbers.
pub fn nodes() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut nodes: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("video")?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    nodes.sort();
    nodes.into_iter().map(|(_, path)| path).collect()
}

/// Every camera. Nodes that can never be one, a codec's or a camera's second for its metadata, are left out.
pub fn cameras(wish: &RequestedMode) -> Vec<CameraInfo> {
    let names = stable_names();
    let mut cameras: Vec<CameraInfo> = nodes()
        .into_iter()
        .filter_map(|node| {
            let stable = names.iter().find(|(_, target)| *target == node).map(|(name, _)| name);
            look(&node, stable.unwrap_or(&node), wish)
        })
        .collect();
    let usable = |camera: &&mut CameraInfo| camera.problem.is_none() && !camera.modes.is_empty();
    if let Some(first) = cameras.iter_mut().find(usable) {
        first.auto = true;
    }
    cameras
}

fn look(node: &Path, stable: &Path, wish: &RequestedMode) -> Option<CameraInfo> {
    let mut camera = CameraInfo {
        device: stable.display().to_string(),
        node: node.display().to_string(),
        card: String::new(),
        driver: String::new(),
        modes: Vec::new(),
        unread: Vec::new(),
        problem: None,
        auto: false,
    };
    match open_node(node) {
        Ok((open, identity)) => {
            (camera.card, camera.driver) = (identity.card, identity.driver);
            camera.modes = negotiate::modes(&open, wish).iter().map(ModeInfo::from).collect();
            let foreign = |fourcc: &FourCC| Encoding::of(*fourcc).is_none();
            camera.unread = open.formats().into_iter().filter(foreign).map(name).collect();
        }
        Err(CaptureError::Unusable(_)) => return None,
        Err(error) => camera.problem = Some(error.to_string()),
    }
    Some(camera)
}

/// Names that udev keeps for each camera, and the nodes they lead to now. By what it is first, then by where it is
/// plugged in.
fn stable_names() -> Vec<(PathBuf, PathBuf)> {
    let mut names: Vec<(PathBuf, PathBuf)> = Vec::new();
    for folder in ["/dev/v4l/by-id", "/dev/v4l/by-path"] {
        let links = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut links: Vec<PathBuf> = links.map(|entry| entry.path()).collect();
        links.sort();
        names.extend(links.into_iter().filter_map(|link| {
            let node = link.canonicalize().ok()?;
            Some((link, node))
        }));
    }
    names
}
