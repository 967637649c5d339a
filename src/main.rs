//! The `amberfs` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    amberfs::cli::main()
}
