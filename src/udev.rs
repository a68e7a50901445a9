//! The stable device names that udev maintains under `/dev`, such as `/dev/v4l/by-id/…` and `/dev/serial/by-id/…`.

use std::path::{Path, PathBuf};

/// A symbolic link whose name stays with the device, and the node that it points to now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StableName {
    pub link: PathBuf,
    pub node: PathBuf,
}

/// All stable names below `folder`, such as `/dev/serial`. Names made from the device's identity come before names made from
/// the port that it is plugged into.
pub fn stable_names(folder: &Path) -> Vec<StableName> {
    ["by-id", "by-path"]
        .iter()
        .flat_map(|kind| links(&folder.join(kind)))
        .collect()
}

/// The preferred stable name of `node`, or `node` itself without one.
pub fn preferred_name<'a>(names: &'a [StableName], node: &'a Path) -> &'a Path {
    names
        .iter()
        .find(|name| name.node == node)
        .map_or(node, |name| &name.link)
}

fn links(folder: &Path) -> Vec<StableName> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<StableName> = entries
        .filter_map(|entry| {
            let link = entry.path();
            let node = link.canonicalize().ok()?;
            Some(StableName { link, node })
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_preferred_to_a_port_and_a_node_without_links_names_itself() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().canonicalize().unwrap();
        let node = |name: &str| {
            let path = folder.join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        let (both, port_only, neither) = (node("a"), node("b"), node("c"));
        for (kind, name, target) in [
            ("by-id", "usb-a", &both),
            ("by-path", "1.1", &both),
            ("by-path", "1.2", &port_only),
        ] {
            std::fs::create_dir_all(folder.join(kind)).unwrap();
            std::os::unix::fs::symlink(target, folder.join(kind).join(name)).unwrap();
        }
        let names = stable_names(&folder);
        assert_eq!(preferred_name(&names, &both), folder.join("by-id/usb-a"));
        assert_eq!(preferred_name(&names, &port_only), folder.join("by-path/1.2"));
        assert_eq!(preferred_name(&names, &neither), neither);
    }
}
