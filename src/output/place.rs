//! Where a path leads. Two paths may name one file or port: by links, by `..`, or by two mounts of one folder.

use std::path::{Path, PathBuf};

/// The kernel follows no more links in one path.
const MAX_LINKS: usize = 40;

/// The path of the file that opening `path` opens or creates. A link may lead to a file that is still absent. The folder is
/// canonical if it exists.
pub fn real_path(path: &Path) -> PathBuf {
    let mut real = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        let Ok(target) = std::fs::read_link(&real) else { break };
        real = folder_of(&real).join(target);
    }
    match (std::fs::canonicalize(folder_of(&real)), real.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => real,
    }
}

/// The folder that holds `path`.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => Path::new("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::tempdir;

    #[test]
    fn links_are_followed_to_a_file_that_is_absent() {
        let folder = tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        symlink(root.join("real"), root.join("folder")).unwrap();
        symlink("second", root.join("first")).unwrap();
        symlink("folder/x", root.join("second")).unwrap();
        for name in ["first", "second", "folder/x", "real/../real/x"] {
            assert_eq!(real_path(&root.join(name)), root.join("real/x"), "{name}");
        }
        symlink("nowhere/x", root.join("third")).unwrap();
        assert_eq!(real_path(&root.join("third")), root.join("nowhere/x"));
    }

    #[test]
    fn a_name_without_a_folder_is_in_the_current_one() {
        assert_eq!(folder_of(Path::new("x")), Path::new("."));
        let current = std::fs::canonicalize(".").unwrap();
        assert_eq!(real_path(Path::new("no such file")), current.join("no such file"));
    }

    #[test]
    fn links_in_a_circle_end() {
        let folder = tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        real_path(&folder.path().join("a"));
    }
}
