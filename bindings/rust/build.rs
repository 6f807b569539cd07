// SPDX-License-Identifier: BSD-3-Clause
//! Asks pkg-config where libattention is.

use std::env;
use std::process::Command;

fn main() {
    for variable in ["PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR"] {
        println!("cargo:rerun-if-env-changed={}", variable);
    }
    for flag in link_flags().split_whitespace() {
        if let Some(folder) = flag.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={}", folder);
        } else if let Some(library) = flag.strip_prefix("-l") {
            println!("cargo:rustc-link-lib=dylib={}", library);
        }
    }
}

fn link_flags() -> String {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
    let output = Command::new(&program)
        .args(["--libs", "attention"])
        .output()
        .unwrap_or_else(|error| panic!("{}: {}", program, error));
    if !output.status.success() {
        panic!(
            "libattention is not installed where PKG_CONFIG_PATH says: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).expect("pkg-config prints UTF-8")
}
