//! The one binary: it only chooses which part of Pintle this process is.

fn main() {}
