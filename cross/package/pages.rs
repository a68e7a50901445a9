//! Writes the man pages and shell completions of affectd into a folder, for `cross/package.sh`.

use std::path::PathBuf;

use affectd::cli::Cli;
use clap::CommandFactory;
use clap_complete::Shell;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).expect("usage: pages FOLDER"));
    std::fs::create_dir_all(&folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "affectd", &folder)?;
    }
    clap_mangen::generate_to(Cli::command(), &folder)
}
