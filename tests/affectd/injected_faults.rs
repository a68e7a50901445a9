//! Real panics, with the feature `faults`.

use super::{affectd, demo};

#[test]
fn a_panic_on_any_thread_ends_affectd_with_code_70_and_says_where_to_report_it() {
    for (fault, thread) in [("panic-face", "face"), ("panic-main", "main")] {
        let output = affectd()
            .args(["run", "--input"])
            .arg(demo())
            .env("AFFECTD_FAULT", fault)
            .output()
            .unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(70), "{log}");
        let panic = log
            .lines()
            .find(|line| line.contains(" panicked at src/daemon/fault_injection.rs:"));
        assert!(
            panic.is_some_and(|line| line.contains(&format!("thread {thread} "))),
            "{log}"
        );
        let last = log.lines().last().unwrap();
        assert!(
            last.starts_with("affectd: ") && last.contains(&format!("AFFECTD_FAULT={fault}")),
            "{last}"
        );
        assert!(
            last.ends_with(
                "this is a bug in affectd: please report it as an issue in affectd's repository, with the log above"
            ),
            "{last}"
        );
    }
}
