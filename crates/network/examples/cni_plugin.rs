//! The built-in plugin as a program of its own, as a CNI runtime calls it.

fn main() -> std::process::ExitCode {
    network::plugin::plugin_main()
}
