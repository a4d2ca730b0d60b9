//! Measures container runtimes through CRI: lifecycle latency, many pods, memory, idle processor use and pulls, several runtimes side by side in one run.
//!
//! Every runtime gets the same calls by the same client with the same pods, in rounds whose order rotates, so that what else happens on
//! the machine falls on all of them. A figure is the median over all rounds with the 95th percentile beside it.

mod content;
mod images;
mod lifecycle;
mod many;
mod memory;
mod peers;
mod pods;
mod processes;
mod pulls;
mod report;
mod samples;
mod target;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use pods::Network;
use report::Report;
use std::path::PathBuf;
use target::Target;

/// Measure container runtimes side by side through CRI.
#[derive(Parser)]
#[command(name = "pintle-bench")]
struct Args {
    /// A runtime that is running: NAME=unix:///socket, or NAME=unix:///socket,PID of its daemon for memory and processor use
    #[arg(long = "endpoint", value_name = "NAME=ENDPOINT[,PID]")]
    endpoints: Vec<target::Given>,
    /// Start a throw-away daemon of this pintle binary and measure it
    #[arg(long, value_name = "BINARY")]
    pintle: Option<PathBuf>,
    /// Start a throw-away containerd, if it is installed, and measure it too
    #[arg(long)]
    containerd: bool,
    /// Start a throw-away CRI-O, if it, pinns and conmon are installed, and measure it too
    #[arg(long)]
    crio: bool,
    /// Image with sh, sleep and true, pulled where it is absent; otherwise one is made of this machine's static busybox
    #[arg(long)]
    image: Option<String>,
    /// How often everything is measured, with the order of the runtimes rotated
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Pods whose lifecycle is measured call by call, per round and network; 0 leaves the part out
    #[arg(long, default_value_t = 20)]
    iterations: usize,
    /// Pods that exist at the same time in the second part; 0 leaves the part out
    #[arg(long, default_value_t = 100)]
    pods: usize,
    /// How many of them are made at the same time
    #[arg(long, value_delimiter = ',', default_value = "1,10")]
    concurrency: Vec<usize>,
    /// Networks of the pods whose lifecycle is measured
    #[arg(long, value_delimiter = ',', default_value = "pod,host")]
    network: Vec<Network>,
    /// Seconds over which idle processor use is taken while the pods are there
    #[arg(long, default_value_t = 20)]
    idle_secs: u64,
    /// Pulls per round of each image: large files, many small ones, and one through a slow link; lists beside a pull, too; 0 leaves all that out
    #[arg(long, default_value_t = 1)]
    pulls: usize,
    /// Control group of the pods
    #[arg(long, default_value = "/pintle-bench")]
    cgroup_parent: String,
    /// Also write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        rustix::process::geteuid().is_root(),
        "needs root: it reads other processes' memory and makes control groups"
    );
    // Images are served by a thread of their own: what that takes is not in the latencies that the client sees.
    let serving = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let images = serving.block_on(images::Served::start(args.pulls > 0))?;
    // When this client gets a processor again, which pulls keep busy, is no latency of the runtime's.
    sys::turns::take_short().context("asking for short turns on the processor")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            measured = run(args, &images) => measured,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}

async fn run(args: Args, images: &images::Served) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("pintle-bench-").tempdir()?;
    let mut peers = Vec::new();
    let mut targets = Vec::new();
    for given in &args.endpoints {
        targets.push(Target::connect(given).await?);
    }
    if let Some(binary) = &args.pintle {
        let peer = peers::pintle::start(binary, scratch.path()).await?;
        targets.push(Target::connect(&peer.given).await?);
        peers.push(peer);
    }
    if args.containerd {
        let peer = peers::containerd::start(scratch.path(), &images.pause()).await?;
        targets.push(Target::connect(&peer.given).await?);
        peers.push(peer);
    }
    if args.crio {
        let peer = peers::crio::start(scratch.path(), &images.pause(), &images.hosts()).await?;
        targets.push(Target::connect(&peer.given).await?);
        peers.push(peer);
    }
    ensure!(!targets.is_empty(), "nothing to measure: give --endpoint, --pintle, --containerd or --crio");
    let image = match &args.image {
        Some(image) => image.clone(),
        None => images
            .busybox()
            .context("this machine has no static busybox (Debian: busybox-static); give --image")?,
    };
    let plan = pods::Plan {
        image,
        cgroup_parent: args.cgroup_parent.clone(),
        directory: scratch.path().join("pods"),
    };
    let mut report = Report::new(&targets, &args.cgroup_parent);
    let measured = measure(&args, &targets, &plan, images, &mut report).await;
    for target in &targets {
        if let Err(error) = target.remove_pods().await {
            eprintln!("{}: removing what is left: {error:#}", target.name);
        }
    }
    for peer in peers {
        peer.stop().await;
    }
    pods::remove_control_groups(&args.cgroup_parent);
    measured?;
    print!("{}", report.markdown());
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{:#}\n", report.json()))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

async fn measure(
    args: &Args,
    targets: &[Target],
    plan: &pods::Plan,
    images: &images::Served,
    report: &mut Report,
) -> Result<()> {
    plan.prepare()?;
    for target in targets {
        target.pull_if_absent(&plan.image).await?;
        memory::idle(target, report);
    }
    for round in 0..args.rounds {
        for step in 0..targets.len() {
            let target = &targets[(round + step) % targets.len()];
            for network in args.network.iter().filter(|_| args.iterations > 0) {
                eprintln!("round {}: {}: lifecycle, {} network", round + 1, target.name, network.word());
                lifecycle::measure(target, plan, *network, args.iterations, report).await?;
            }
            for concurrency in args.concurrency.iter().filter(|_| args.pods > 0) {
                eprintln!(
                    "round {}: {}: {} pods, {concurrency} at a time",
                    round + 1,
                    target.name,
                    args.pods
                );
                let crowd = many::Crowd {
                    count: args.pods,
                    concurrency: *concurrency,
                    idle_secs: args.idle_secs,
                    pull: images.to_pull().first(),
                };
                many::measure(target, plan, &crowd, report).await?;
            }
            if args.pulls > 0 {
                eprintln!("round {}: {}: pulls", round + 1, target.name);
                pulls::measure(target, images, args.pulls, &plan.directory, report).await?;
            }
        }
    }
    Ok(())
}
