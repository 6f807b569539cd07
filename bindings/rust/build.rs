// SPDX-License-Identifier: BSD-3-Clause
//! Asks pkg-config where libattention is, and how it is linked: by the rules of the crate `pkg-config`,
//! whose variables these are; where only `libattention.a` is installed, there is nothing to choose.

use std::env;
use std::path::Path;
use std::process::Command;

/// The first that is set decides.
const WISHES: [(&str, bool); 4] = [
    ("ATTENTION_STATIC", true),
    ("ATTENTION_DYNAMIC", false),
    ("PKG_CONFIG_ALL_STATIC", true),
    ("PKG_CONFIG_ALL_DYNAMIC", false),
];

fn main() {
    for variable in [
        "PKG_CONFIG",
        "PKG_CONFIG_PATH",
        "PKG_CONFIG_LIBDIR",
        "PKG_CONFIG_SYSROOT_DIR",
    ] {
        println!("cargo:rerun-if-env-changed={}", variable);
    }
    for (variable, _) in WISHES {
        println!("cargo:rerun-if-env-changed={}", variable);
    }
    let folder = pkg_config(&["--variable=libdir", "attention"]);
    let is_static = is_linked_statically(folder.trim());
    if is_static {
        // rustc itself looks for a static library, and in no folder of the system's.
        println!("cargo:rustc-link-search=native={}", folder.trim());
    }
    let arguments: &[&str] = if is_static {
        &["--libs", "--static", "attention"]
    } else {
        &["--libs", "attention"]
    };
    for flag in pkg_config(arguments).split_whitespace() {
        if let Some(folder) = flag.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={}", folder);
        } else if let Some(library) = flag.strip_prefix("-l") {
            // What a static libattention needs itself, BLAS above all, is linked as the system has it.
            let kind = if is_static && library == "attention" {
                "static"
            } else {
                "dylib"
            };
            println!("cargo:rustc-link-lib={}={}", kind, library);
        }
    }
}

fn is_linked_statically(folder: &str) -> bool {
    let wish = WISHES
        .iter()
        .find(|(variable, _)| env::var_os(variable).is_some());
    wish.map_or_else(
        || {
            let folder = Path::new(folder);
            folder.join("libattention.a").exists() && !folder.join("libattention.so").exists()
        },
        |(_, is_static)| *is_static,
    )
}

fn pkg_config(arguments: &[&str]) -> String {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
    let output = Command::new(&program)
        .args(arguments)
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
