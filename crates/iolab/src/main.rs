//! `iolab`: the one command of the measuring side.

fn main() {}
