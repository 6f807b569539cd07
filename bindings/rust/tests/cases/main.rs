// SPDX-License-Identifier: BSD-3-Clause
//! Runs every case of the folder ATTENTION_CASES, which the library's build exports.

mod gradients;
mod judge;
mod reader;
mod run;

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use reader::{Case, Result};

const FEWEST_CASES: usize = 60;
const FEWEST_ERRORS: usize = 5;

fn main() -> ExitCode {
    match run_all() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("{}", problem);
            ExitCode::FAILURE
        }
    }
}

fn run_all() -> Result<bool> {
    let folder = env::var("ATTENTION_CASES")
        .map_err(|_| "ATTENTION_CASES must name a folder of cases: <build>/interop-cases")?;
    let folder = Path::new(&folder);
    let (mut cases, mut errors, mut failures) = (0, 0, 0);
    for name in fs::read_to_string(folder.join("cases.txt"))?.lines() {
        let outcome = Case::read(&folder.join(format!("{}.case", name))).and_then(|case| {
            if case.error.is_some() {
                errors += 1;
            } else {
                cases += 1;
            }
            run::run(&case)
        });
        if let Err(problem) = outcome {
            println!("{}: {}", name, problem);
            failures += 1;
        }
    }
    println!(
        "rust: {} cases, {} errors, {} failures",
        cases, errors, failures
    );
    Ok(failures == 0 && cases >= FEWEST_CASES && errors >= FEWEST_ERRORS)
}
