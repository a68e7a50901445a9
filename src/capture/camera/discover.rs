//! Finding and opening video nodes, and what their errors mean.

use std::io;
use std::path::{Path, PathBuf};

use super::node::{Identity, Node};
use crate::capture::CaptureError;
use crate::capture::error::{Operation, Reason};

const LOOPBACK_DRIVER: &str = "v4l2 loopback";

/// All video nodes, in the order of their numbers.
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

/// Drivers whose nodes are parts of a ribbon camera's pipeline. They deliver raw data of the sensor, or nothing without the other parts.
const PIPELINE_DRIVERS: [&str; 7] = [
    "bcm2835-codec",
    "bcm2835-isp",
    "pispbe",
    "rp1-cfe",
    "rpi-hevc-dec",
    "rpivid",
    "unicam",
];

/// Whether a node of this driver is a part of a ribbon camera's pipeline, not a camera by itself.
pub fn is_pipeline(driver: &str) -> bool {
    PIPELINE_DRIVERS.contains(&driver)
}

/// The nodes that may be a camera, the most probable first: those of real cameras come before loopback nodes, which show what another
/// program writes to them.
pub fn candidates() -> Vec<PathBuf> {
    let mut nodes = nodes();
    let driver = |node: &PathBuf| {
        Node::open(node)
            .and_then(|node| node.identity())
            .map(|identity| identity.driver)
    };
    nodes.retain(|node| !driver(node).is_ok_and(|driver| is_pipeline(&driver)));
    nodes.sort_by_key(|node| driver(node).is_ok_and(|driver| driver == LOOPBACK_DRIVER));
    nodes
}

/// Opens a node that can capture frames.
pub fn open_node(path: &Path) -> Result<(Node, Identity), CaptureError> {
    let name = path.display().to_string();
    let node = Node::open(path).map_err(|e| driver_error(&name, Operation::Open, &e))?;
    let identity = node
        .identity()
        .map_err(|e| driver_error(&name, Operation::Identify, &e))?;
    if let Some(planes) = identity.captures {
        return Ok((node.with_planes(planes), identity));
    }
    let reason = if identity.outputs || identity.driver == LOOPBACK_DRIVER {
        // A v4l2loopback node only becomes a capture node once a program writes to it.
        Reason::LoopbackIdle
    } else {
        Reason::NotACaptureNode
    };
    Err(CaptureError::camera(&name, reason))
}

/// Translates an error of the driver.
pub fn driver_error(name: &str, operation: Operation, error: &io::Error) -> CaptureError {
    let reason = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Reason::NotConnected,
        Some(libc::EBUSY) => Reason::Busy,
        Some(libc::EACCES | libc::EPERM) => Reason::PermissionDenied,
        Some(libc::ENOSPC) => Reason::UsbBandwidth,
        Some(libc::ENOTTY | libc::EISDIR) => Reason::NotACamera,
        _ => Reason::Failed {
            operation,
            error: error.to_string(),
        },
    };
    CaptureError::camera(name, reason)
}
