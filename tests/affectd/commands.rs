//! `affectd --version` and `affectd completions`.

use super::{affectd, demo};

fn stdout(arguments: &[&str]) -> String {
    let output = affectd().args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn version_names_release_commit_and_build() {
    let version = stdout(&["--version"]);
    assert_eq!(version, format!("affectd {}\n", affectd::cli::VERSION));
}

#[test]
fn completions_for_each_shell_know_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = stdout(&["completions", shell]);
        for command in ["monitor", "completions", "i-have-consent"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn a_shell_without_completions_is_a_usage_error_that_names_the_others() {
    let output = affectd().args(["completions", "tcsh"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("bash, elvish, fish, powershell, zsh"), "{error}");
}

#[test]
fn a_bash_that_reads_the_completions_completes_a_command() {
    let script = stdout(&["completions", "bash"]);
    let ask = "\nCOMP_WORDS=(affectd mon) COMP_CWORD=1; _affectd affectd mon affectd; echo \"${COMPREPLY[@]}\"\n";
    let bash = std::process::Command::new("bash")
        .arg("-c")
        .arg(script + ask)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(bash.stdout).unwrap(),
        "monitor\n",
        "{}",
        String::from_utf8_lossy(&bash.stderr)
    );
}

#[test]
fn a_result_that_cannot_be_written_is_an_error_and_a_closed_pipe_is_not() {
    let demo = demo();
    for arguments in [
        &["config"][..],
        &["completions", "bash"],
        &["model"],
        &["devices"],
        &["check", "--input", demo.to_str().unwrap()],
        &["bench", "--iterations", "1"],
        &["--help"],
        &["run", "--help"],
    ] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let output = affectd().args(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        let error = error.lines().last().unwrap_or_default();
        assert!(
            error.starts_with("affectd: standard output: cannot be written ("),
            "{error}"
        );
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = affectd().args(arguments).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}
