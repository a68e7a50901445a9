//! Where a path leads. Two paths may name one file or port: by links, by `..`, or by two mounts of one folder.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The kernel follows no more links in one path.
const MAX_LINKS: usize = 40;
/// At most 999 old files are kept.
const MAX_AGE_DIGITS: usize = 3;

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

/// A file or port, as far as it exists now.
#[derive(Debug)]
pub struct Place {
    real: PathBuf,
    folder: Option<Identity>,
    content: Option<Identity>,
}

/// Equal for all names of one file, folder or device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    Inode { device: u64, inode: u64 },
    Device(u64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Identity {
        match metadata.file_type().is_char_device() {
            true => Identity::Device(metadata.rdev()),
            false => Identity::Inode {
                device: metadata.dev(),
                inode: metadata.ino(),
            },
        }
    }

    fn at(path: &Path) -> Option<Identity> {
        std::fs::metadata(path).ok().map(|metadata| Identity::of(&metadata))
    }
}

impl Place {
    pub fn of(path: &Path) -> Place {
        let real = real_path(path);
        Place {
            folder: Identity::at(folder_of(&real)),
            content: Identity::at(&real),
            real,
        }
    }

    /// Whether both are one file or port.
    pub fn is_same(&self, other: &Place) -> bool {
        let same_content = self.content.is_some() && self.content == other.content;
        same_content || (self.is_beside(other) && self.name() == other.name())
    }

    /// Whether this has the name of `other` with a number behind it, as an old file of `other` has after a rotation.
    pub fn is_old_file_of(&self, other: &Place) -> bool {
        let (name, current) = (self.name(), other.name());
        let rest = name.as_bytes().strip_prefix(current.as_bytes());
        let number = rest.and_then(|rest| rest.strip_prefix(b"."));
        let is_age = |number: &[u8]| matches!(number, [b'1'..=b'9', rest @ ..] if number.len() <= MAX_AGE_DIGITS && rest.iter().all(u8::is_ascii_digit));
        self.is_beside(other) && number.is_some_and(is_age)
    }

    /// Whether it is the file to which standard output is redirected.
    pub fn is_stdout(&self) -> bool {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned();
        let metadata = stdout.and_then(|stdout| File::from(stdout).metadata());
        metadata.is_ok_and(|metadata| self.content == Some(Identity::of(&metadata)))
    }

    /// Whether both are in one folder.
    fn is_beside(&self, other: &Place) -> bool {
        match (self.folder, other.folder) {
            (Some(a), Some(b)) => a == b,
            (None, None) => folder_of(&self.real) == folder_of(&other.real),
            _ => false,
        }
    }

    fn name(&self) -> OsString {
        self.real.file_name().unwrap_or_default().to_owned()
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
    fn all_names_of_a_file_are_one_place_whether_it_exists_or_not() {
        let folder = tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("x")).unwrap();
        symlink("x", root.join("link")).unwrap();
        symlink("x/q", root.join("to-q")).unwrap();
        let same = |a: &str, b: &str| Place::of(&root.join(a)).is_same(&Place::of(&root.join(b)));
        for _ in ["absent", "present"] {
            for name in ["x/q", "./x/q", "x/../x/q", "link/q", "to-q"] {
                assert!(same("x/q", name), "{name}");
            }
            for name in ["q", "x/Q", "x/q.1", "absent/q"] {
                assert!(!same("x/q", name), "{name}");
            }
            std::fs::write(root.join("x/q"), "").unwrap();
        }
        std::fs::hard_link(root.join("x/q"), root.join("hard")).unwrap();
        assert!(same("x/q", "hard"));
        assert!(same("absent/q", "absent/q"));
    }

    #[test]
    fn two_names_of_a_device_are_one_place() {
        let folder = tempdir().unwrap();
        symlink("/dev/null", folder.path().join("null")).unwrap();
        let null = Place::of(&folder.path().join("null"));
        assert!(null.is_same(&Place::of(Path::new("/dev/null"))));
        assert!(!null.is_same(&Place::of(Path::new("/dev/zero"))));
    }

    #[test]
    fn old_files_have_the_name_and_a_number() {
        let folder = tempdir().unwrap();
        std::fs::create_dir(folder.path().join("x")).unwrap();
        symlink("z.2", folder.path().join("link")).unwrap();
        let place = |name: &str| Place::of(&folder.path().join(name));
        for (name, is_old) in [
            ("z.1", true),
            ("x/../z.999", true),
            ("link", true),
            ("z", false),
            ("z.", false),
            ("z.csv", false),
            ("z.0", false),
            ("z.01", false),
            ("z.20261201", false),
            ("z1", false),
            ("x/z.1", false),
        ] {
            assert_eq!(place(name).is_old_file_of(&place("z")), is_old, "{name}");
        }
        assert!(!place("z").is_old_file_of(&place("z.1")));
    }

    #[test]
    fn links_in_a_circle_end() {
        let folder = tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        real_path(&folder.path().join("a"));
    }
}
