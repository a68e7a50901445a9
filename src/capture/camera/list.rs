//! The cameras of this machine, for `affectd devices`.

use std::path::Path;

use serde::Serialize;

use super::discover::{candidates, is_pipeline, nodes, open_node};
use super::negotiate::{self, Encoding, Mode, RequestedMode};
use super::node::format_name;
use crate::capture::CaptureErrorKind;
use crate::udev::{preferred_name, stable_names};

/// One camera.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CameraInfo {
    /// The name to put into the configuration. It stays with the camera if udev has such a name.
    pub device: String,
    pub node: String,
    pub card: String,
    pub driver: String,
    /// Modes that affectd can request.
    pub modes: Vec<ModeInfo>,
    /// Pixel formats that the camera offers and affectd does not read.
    pub unsupported: Vec<String>,
    /// Why the camera cannot be used at the moment.
    pub problem: Option<String>,
    /// `device = "auto"` selects this camera.
    pub auto: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModeInfo {
    pub format: String,
    pub width: u32,
    pub height: u32,
    /// The highest frame rate. Null if the driver does not report it.
    pub rate_hz: Option<f64>,
}

impl From<&Mode> for ModeInfo {
    fn from(mode: &Mode) -> ModeInfo {
        ModeInfo {
            format: format_name(mode.fourcc),
            width: mode.width,
            height: mode.height,
            rate_hz: mode.rate_hz,
        }
    }
}

/// All cameras. Nodes that can never be a camera are left out, such as codecs and metadata nodes. Where a camera supports any
/// size within limits, its modes have the size nearest to `requested`.
pub fn cameras(requested: &RequestedMode) -> Vec<CameraInfo> {
    let names = stable_names(Path::new("/dev/v4l"));
    let mut cameras: Vec<CameraInfo> = nodes()
        .iter()
        .filter_map(|node| camera_info(node, preferred_name(&names, node), requested))
        .collect();
    let usable = |camera: &CameraInfo| camera.problem.is_none() && !camera.modes.is_empty();
    let order = candidates();
    let place = |camera: &CameraInfo| order.iter().position(|node| node.display().to_string() == camera.node);
    let usable = cameras.iter_mut().filter(|camera| usable(camera));
    if let Some(first) = usable.min_by_key(|camera| place(camera).unwrap_or(usize::MAX)) {
        first.auto = true;
    }
    cameras
}

/// `None` if the node can never be a camera.
fn camera_info(node: &Path, device: &Path, requested: &RequestedMode) -> Option<CameraInfo> {
    let mut camera = CameraInfo {
        device: device.display().to_string(),
        node: node.display().to_string(),
        card: String::new(),
        driver: String::new(),
        modes: Vec::new(),
        unsupported: Vec::new(),
        problem: None,
        auto: false,
    };
    match open_node(node) {
        Ok((open, identity)) => {
            (camera.card, camera.driver) = (identity.card, identity.driver);
            if is_pipeline(&camera.driver) {
                camera.problem = Some(format!(
                    "{}: is a part of a ribbon camera's pipeline, not a camera by itself",
                    camera.node
                ));
                return Some(camera);
            }
            camera.modes = negotiate::modes(&open, requested).iter().map(ModeInfo::from).collect();
            let formats = open.formats().into_iter();
            camera.unsupported = formats
                .filter(|fourcc| Encoding::of(*fourcc).is_none())
                .map(format_name)
                .collect();
        }
        Err(error) if error.kind() == CaptureErrorKind::Unusable => return None,
        Err(error) => camera.problem = Some(error.to_string()),
    }
    Some(camera)
}
