//! Project tasks: `cargo xtask test`, `tidy`, `dist`, `bench`, `conformance`, `gen`.

mod r#gen;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("gen") => r#gen::run(&args[1..]),
        _ => anyhow::bail!("which task? known: gen"),
    }
}
