use std::fmt::Write;

use clap::CommandFactory;

use super::*;

#[test]
fn clap_accepts_the_definitions() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_of_each_command_stays_as_it_is() {
    // A fixed width: the default is that of the terminal.
    let mut cli = Cli::command().term_width(100);
    cli.build();
    let mut text = cli.render_long_help().to_string();
    for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let help = command.render_long_help();
        let _ = write!(text, "\n==== {} ====\n{help}", command.get_name());
    }
    insta::assert_snapshot!("help", text);
}

#[test]
fn the_version_names_commit_architecture_and_profile() {
    let parts = VERSION.strip_prefix("0.1.0 (").and_then(|rest| rest.strip_suffix(')'));
    let parts: Vec<&str> = parts.unwrap().split(", ").collect();
    let [commit, architecture, profile] = parts[..] else {
        panic!("{VERSION}");
    };
    assert_eq!(architecture, std::env::consts::ARCH);
    assert!(["debug", "release"].contains(&profile));
    // A release without its repository cannot know its commit.
    if commit != "unknown commit" {
        let (hash, date) = commit.split_once(' ').unwrap();
        let hash = hash.strip_suffix(".dirty").unwrap_or(hash);
        assert!(
            hash.len() == 7 && hash.chars().all(|c| c.is_ascii_hexdigit()),
            "{commit}"
        );
        assert_eq!(date.len(), "2026-11-29".len(), "{commit}");
    }
}
