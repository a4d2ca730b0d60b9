//! Project tasks: `cargo xtask test`, `tidy`, `dist`, `bench`, `conformance`, `gen`.

fn main() {}
