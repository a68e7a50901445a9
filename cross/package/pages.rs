//! Writes the man pages of affectd into a folder, for `cross/package.sh`.

use std::path::PathBuf;

use affectd::cli::Cli;
use clap::CommandFactory;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).expect("usage: pages FOLDER"));
    std::fs::create_dir_all(&folder)?;
    clap_mangen::generate_to(Cli::command(), &folder)
}
