//! The `amberfs` command.

fn main() {}
