//! The image that tests run: a static busybox of this machine, with the links to its programs.

use registry::make::{Compression, ImageBuilder, Layer};
use registry::tar::Entry;

/// The program, if this machine has it.
pub fn program() -> Option<Vec<u8>> {
    let bytes = std::fs::read("/bin/busybox").or_else(|_| std::fs::read("/usr/bin/busybox")).ok()?;
    // A program that names an interpreter needs files that the image would not have.
    let dynamic = bytes.windows(7).take(4096).any(|window| window == b"/ld-linu" || window == b"/lib64/");
    (!dynamic).then_some(bytes)
}

/// With nothing above it.
pub fn image() -> registry::make::Image {
    busybox_with(&[], serde_json::json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] }))
}

/// A busybox with these entries above it and this `config` object.
pub fn busybox_with(above: &[Entry], run: serde_json::Value) -> registry::make::Image {
    let program = program().expect("checked by needs_a_node");
    let applets = [
        "sh", "echo", "cat", "sleep", "true", "false", "ls", "id", "wget", "httpd", "head", "dd", "seq",
        "env", "mount", "touch", "nc", "kill", "hostname", "test", "yes", "grep", "stat", "ps", "ln", "rm",
        "mkdir", "readlink", "setsid", "ip", "wc", "cut", "sort", "chmod", "mv", "ping", "tr", "mknod",
        "stty", "tty",
    ];
    let mut entries = vec![
        Entry::directory("bin", 0o755),
        Entry::file("bin/busybox", 0o755, program),
        Entry::directory("etc", 0o755),
        Entry::file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
        ),
        Entry::file("etc/group", 0o644, "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"),
        Entry::directory("tmp", 0o1777),
    ];
    entries.extend(applets.iter().map(|applet| Entry::symlink(&format!("bin/{applet}"), "busybox")));
    let base = ImageBuilder::new().layer(Layer::new(&entries, Compression::Gzip)).run(run);
    match above {
        [] => base.build(),
        above => base.layer(Layer::new(above, Compression::Gzip)).build(),
    }
}
