//! Compiles the C reader. With clang, libFuzzer also sees its branches, and the sanitizer its accesses.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=wire.c");
    println!("cargo::rerun-if-changed=../../cross/readers/affectd_wire.h");
    let has_clang = Command::new("clang").arg("--version").output().is_ok();
    let sanitizes = env::var("CARGO_CFG_SANITIZE").is_ok_and(|sanitizers| sanitizers.contains("address"));
    for (name, bytes) in [("large", "1024"), ("small", "40")] {
        let mut build = cc::Build::new();
        if has_clang {
            build.compiler("clang").flag("-fsanitize=fuzzer-no-link");
            if sanitizes {
                build.flag("-fsanitize=address");
            }
        }
        build
            .file("wire.c")
            .define("READ", &*format!("affectd_wire_read_{name}"))
            .define("AFFECTD_WIRE_BUFFER", bytes)
            .compile(&format!("affectd_wire_{name}"));
    }
}
