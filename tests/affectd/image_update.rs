//! `affectd-update` of the SD-card image, in a folder that stands for the board's root. The bench boots the image itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const OLD_CONFIG: &str = "os_prefix=a/\nkernel=vmlinuz\n";
const OLD_ROOT: &str = "the old content of slot b";

/// Runs a program, which must succeed.
fn run(program: &str, arguments: &[&str], folder: &Path) {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}: run cross/install-packages.sh tests"));
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A board that runs from slot a, and the folder of the builder of updates.
struct Board {
    folder: TempDir,
}

impl Board {
    fn new() -> Board {
        let board = Board {
            folder: tempfile::tempdir().unwrap(),
        };
        board.write("root/proc/cmdline", "root=PARTUUID=afec7d00-02 ro");
        board.write("root/proc/sys/vm/drop_caches", "");
        board.write("root/run/empty", "");
        board.write("root/boot/firmware/config.txt", OLD_CONFIG);
        board.write("root/boot/firmware/b/vmlinuz", "the old kernel of slot b");
        board.write("root/dev/disk/by-partuuid/afec7d00-03", OLD_ROOT);
        for program in ["mount", "umount", "systemctl"] {
            let path = board.write(
                &format!("bin/{program}"),
                &format!("#!/bin/sh\necho {program} \"$@\" >>\"$CALLS\"\n"),
            );
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for (name, text) in [
            ("boot/vmlinuz", "the new kernel"),
            ("boot/cmdline.txt", "root=PARTUUID=afec7d00-02 ro\n"),
            ("root.squashfs", "the new root"),
        ] {
            board.write(&format!("update/{name}"), text);
        }
        for key in ["ours", "theirs"] {
            let (public, secret) = (format!("{key}.pub"), format!("{key}.sec"));
            run(
                "signify-openbsd",
                &["-G", "-n", "-p", &public, "-s", &secret],
                board.folder.path(),
            );
        }
        fs::create_dir(board.path("root/etc")).unwrap();
        fs::copy(board.path("ours.pub"), board.path("root/etc/affectd-update.pub")).unwrap();
        board.sum_up();
        board.sign("ours");
        board
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Writes the checksums as `cross/image.sh` does.
    fn sum_up(&self) {
        let script = "for file in boot/* root.squashfs; do \
            echo \"$(sha256sum <\"$file\" | cut -d' ' -f1) $(stat -c %s \"$file\") $file\"; done >sums";
        run("sh", &["-c", script], &self.path("update"));
    }

    fn sign(&self, key: &str) {
        let secret = format!("../{key}.sec");
        run(
            "signify-openbsd",
            &["-S", "-s", &secret, "-m", "sums", "-x", "sums.sig"],
            &self.path("update"),
        );
    }

    /// Sends an archive with these files, to which tar's options may belong.
    fn update(&self, files: &[&str]) -> Output {
        run(
            "tar",
            &[&["-cPf", "../sent.tar"][..], files].concat(),
            &self.path("update"),
        );
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/image/root/usr/local/sbin/affectd-update");
        Command::new("sh")
            .arg(script)
            .stdin(Stdio::from(fs::File::open(self.path("sent.tar")).unwrap()))
            .env("AFFECTD_UPDATE_ROOT", self.path("root"))
            .env("CALLS", self.path("calls"))
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .output()
            .unwrap()
    }

    /// Sends files that must be refused with this message. The running slot must stay active.
    fn refuses(&self, files: &[&str], message: &str) {
        let output = self.update(files);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{files:?}: {error}");
        assert_eq!(
            error.lines().last().unwrap(),
            format!("affectd-update: {message}"),
            "{files:?}"
        );
        assert_eq!(self.read("root/boot/firmware/config.txt"), OLD_CONFIG, "{files:?}");
        assert!(!self.path("root/boot/firmware/trial").exists());
        assert!(!self.read("calls").contains("systemctl"), "{files:?}");
    }
}

const WHOLE: [&str; 4] = ["sums.sig", "sums", "boot", "root.squashfs"];
const NOT_SIGNED: &str = "the update is not signed with the key of this image; the running slot stays active: send one that was built \
                          with the same key";
const INCOMPLETE: &str =
    "the update is incomplete, or has files that are not signed; the running slot stays active: send it again";

#[test]
fn a_signed_update_is_written_to_the_other_slot_and_started() {
    let board = Board::new();
    let output = board.update(&WHOLE);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        board.read("root/boot/firmware/config.txt"),
        OLD_CONFIG.replace("a/", "b/")
    );
    assert_eq!(board.read("root/boot/firmware/b/vmlinuz"), "the new kernel");
    assert_eq!(
        board.read("root/boot/firmware/b/cmdline.txt"),
        "root=PARTUUID=afec7d00-03 ro\n"
    );
    assert!(
        board
            .read("root/dev/disk/by-partuuid/afec7d00-03")
            .starts_with("the new root")
    );
    assert!(board.path("root/boot/firmware/trial").exists());
    let calls = board.read("calls");
    let calls: Vec<&str> = calls.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(calls, ["mount", "systemctl", "umount"]);
}

#[test]
fn an_update_without_the_signature_of_the_images_key_writes_nothing() {
    let writes_nothing = |board: &Board, files: &[&str]| {
        board.refuses(files, NOT_SIGNED);
        assert_eq!(
            board.read("root/dev/disk/by-partuuid/afec7d00-03"),
            OLD_ROOT,
            "{files:?}"
        );
        assert_eq!(
            board.read("root/boot/firmware/b/vmlinuz"),
            "the old kernel of slot b",
            "{files:?}"
        );
        assert_eq!(board.read("calls"), "", "{files:?}");
    };
    let board = Board::new();
    writes_nothing(&board, &["sums", "boot", "root.squashfs"]);
    writes_nothing(&board, &["boot", "root.squashfs"]);
    // The checksums before their signature.
    writes_nothing(&board, &["sums", "sums.sig", "boot", "root.squashfs"]);
    board.sign("theirs");
    writes_nothing(&board, &WHOLE);
    let board = Board::new();
    board.write("update/root.squashfs", "a hostile root");
    board.sum_up();
    writes_nothing(&board, &WHOLE);
}

#[test]
fn files_that_the_signature_does_not_cover_are_refused() {
    let board = Board::new();
    board.write("update/boot/extra", "x");
    board.refuses(&WHOLE, INCOMPLETE);
    assert!(!board.path("root/boot/firmware/b/extra").exists());

    let board = Board::new();
    board.write("update/evil", "os_prefix=evil/\n");
    let rename = "--transform=s,^evil,boot/../config.txt,";
    board.refuses(
        &[rename, "sums.sig", "sums", "boot", "root.squashfs", "evil"],
        INCOMPLETE,
    );

    let board = Board::new();
    board.refuses(&["root.squashfs", "sums.sig", "sums", "boot"], INCOMPLETE);

    for name in ["boot/vmlinuz", "boot/cmdline.txt", "root.squashfs"] {
        let board = Board::new();
        let text = board.read(&format!("update/{name}"));
        board.write(&format!("update/{name}"), &text.replace('e', "3"));
        let message = format!("{name} has a wrong checksum; the running slot stays active: send the update again");
        board.refuses(&WHOLE, &message);
    }
}
