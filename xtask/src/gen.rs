//! `cargo xtask gen`: turns the protocol definitions into the Rust that is committed, so that building Pintle needs neither protoc nor a build script.

use anyhow::{Context, Result};

/// Regenerates everything, or with `--check` fails when what is committed is not what would be generated.
///
/// Without the feature `gen` it starts itself once more with that feature, so that the other tasks do not have to compile the generators.
#[cfg(not(feature = "gen"))]
pub(crate) fn run(args: &[String]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = std::process::Command::new(cargo)
        .args(["run", "--quiet", "--package", "xtask", "--features", "gen", "--", "gen"])
        .args(args)
        .status()
        .context("starting cargo to build the generators")?;
    anyhow::ensure!(status.success(), "generating failed: {status}");
    Ok(())
}

#[cfg(feature = "gen")]
pub(crate) use with_generators::run;

#[cfg(feature = "gen")]
mod with_generators {
    use super::{Context, Result};
    use std::path::{Path, PathBuf};

    /// One protocol: the files of its package below the crate's `proto/`, and the Rust file they become.
    struct Protocol {
        crate_dir: &'static str,
        protos: &'static [&'static str],
        output: &'static str,
        /// Clients and servers of its services, for gRPC; without, there are messages only.
        services: bool,
    }

    const PROTOCOLS: &[Protocol] = &[
        Protocol {
            crate_dir: "crates/cri",
            protos: &["runtime/v1/api.proto"],
            output: "runtime.v1.rs",
            services: true,
        },
        Protocol {
            crate_dir: "crates/cri",
            protos: &["pintle/v1/node.proto", "pintle/v1/images.proto"],
            output: "pintle.v1.rs",
            services: true,
        },
        Protocol {
            crate_dir: "crates/nri",
            protos: &["nri/v1alpha1/api.proto"],
            output: "nri.pkg.api.v1alpha1.rs",
            services: false,
        },
    ];

    /// All that the socket serves, for who asks by reflection: its crate, its files below `proto/`, and the encoded set.
    const DESCRIPTORS: (&str, &[&str], &str) = (
        "crates/cri",
        &[
            "runtime/v1/api.proto",
            "runtime/v1alpha2/api.proto",
            "pintle/v1/node.proto",
            "pintle/v1/images.proto",
        ],
        "descriptors.bin",
    );

    pub(crate) fn run(args: &[String]) -> Result<()> {
        let check = args.iter().any(|arg| arg == "--check");
        let workspace =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
        let place =
            |crate_dir: &str, output: &str| workspace.join(crate_dir).join("src/generated").join(output);
        let mut outputs = Vec::new();
        for protocol in PROTOCOLS {
            let text = generate(workspace, protocol)?;
            outputs.push((place(protocol.crate_dir, protocol.output), text.into_bytes()));
        }
        let (crate_dir, protos, output) = DESCRIPTORS;
        outputs
            .push((place(crate_dir, output), descriptors(&workspace.join(crate_dir).join("proto"), protos)?));
        let mut stale = Vec::new();
        for (path, content) in outputs {
            if std::fs::read(&path).unwrap_or_default() == content {
                continue;
            }
            if check {
                stale.push(path);
            } else {
                std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
                println!("wrote {}", path.display());
            }
        }
        if !check {
            crate::apparmor::compile(workspace)?;
        }
        anyhow::ensure!(stale.is_empty(), "not what `cargo xtask gen` would write: {}", join(&stale));
        Ok(())
    }

    /// Returns the encoded `FileDescriptorSet` of these files, without their comments.
    fn descriptors(proto_dir: &Path, protos: &[&str]) -> Result<Vec<u8>> {
        let set = protox::Compiler::new([proto_dir]).and_then(|mut compiler| {
            compiler.open_files(protos).map(|compiler| compiler.encode_file_descriptor_set())
        });
        set.map_err(|error| anyhow::anyhow!("{protos:?}: {error}"))
    }

    /// Returns the Rust text for one protocol.
    fn generate(workspace: &Path, protocol: &Protocol) -> Result<String> {
        let proto_dir = workspace.join(protocol.crate_dir).join("proto");
        let descriptors = protox::compile(protocol.protos, [&proto_dir])
            .map_err(|error| anyhow::anyhow!("{:?}: {error}", protocol.protos))?;
        let scratch = scratch_dir()?;
        // BTreeMap: labels and annotations are printed, hashed and compared, so their order must not change from run to run.
        let generated = tonic_prost_build::configure()
            .btree_map(".")
            .build_client(protocol.services)
            .build_server(protocol.services)
            .out_dir(&scratch)
            .emit_package(true)
            .compile_fds(descriptors)
            .with_context(|| format!("generating from {:?}", protocol.protos));
        let text = generated.and_then(|()| {
            let file = scratch.join(protocol.output);
            std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
        });
        let _ = std::fs::remove_dir_all(&scratch);
        Ok(format!(
            "//! @generated by `cargo xtask gen` from `proto/{}`. Do not edit: change the definition and generate again.\n\n{}",
            protocol.protos.join("`, `proto/"),
            text?
        ))
    }

    fn scratch_dir() -> Result<PathBuf> {
        let dir = std::env::temp_dir().join(format!("pintle-gen-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(dir)
    }

    fn join(paths: &[PathBuf]) -> String {
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}
