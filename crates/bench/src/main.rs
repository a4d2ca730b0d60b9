//! Measures container runtimes through CRI: lifecycle latency, many pods, memory, idle processor use and pulls, several runtimes side by side in one run.
//!
//! Every runtime gets the same calls by the same client with the same pods, in rounds whose order rotates, so that what else happens on
//! the machine falls on all of them. A figure is the median over all rounds with the 95th percentile beside it.

mod content;
mod counts;
mod cpu;
mod endurance;
mod growth;
mod images;
mod lifecycle;
mod many;
mod memory;
mod page;
mod peers;
mod pods;
mod processes;
mod pulls;
mod report;
mod restart;
mod samples;
mod target;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use peers::Peer;
use pods::Network;
use report::Report;
use std::path::{Path, PathBuf};
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
    /// Measure a second daemon of --pintle whose pods get their network from the plugins that the other runtimes call
    #[arg(long, requires = "pintle")]
    chain: bool,
    /// Pods that run while each daemon that was started here is ended and started again; 0 leaves the part out
    #[arg(long, default_value_t = 0)]
    restart_pods: usize,
    /// Counts of pods at which it is measured how the runtimes grow, the lowest first
    #[arg(long, value_delimiter = ',')]
    growth: Vec<usize>,
    /// With --growth: write the picture
    #[arg(long, value_name = "SVG", requires = "growth")]
    picture: Option<PathBuf>,
    /// For how many seconds pods come and go; then 200 containers in one pod, and 10,000 commands; 0 leaves all that out
    #[arg(long, default_value_t = 0)]
    endurance_secs: u64,
    /// Also put the tables into this page, between its lines `<!-- measured -->` and `<!-- end of what was measured -->`
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
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
    /// Count, with strace, what a pod costs --pintle in processes, syncs and system calls; fail where it is more than its bounds allow
    #[arg(long, requires = "pintle", conflicts_with_all = ["endpoints", "containerd", "crio"])]
    counts: bool,
    /// With --counts: where the bounds stand
    #[arg(long, value_name = "FILE", default_value_os_t = counts::bounds_file())]
    bounds: PathBuf,
    /// With --counts: write what was counted as the new bounds
    #[arg(long, requires = "counts")]
    bless: bool,
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
    let images = serving.block_on(images::Served::start(args.pulls > 0 && !args.counts))?;
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
    if let Some(binary) = args.pintle.as_deref().filter(|_| args.counts) {
        let (bounds, bless, cgroup_parent) = (&*args.bounds, args.bless, &*args.cgroup_parent);
        let wanted = counts::Wanted { binary, bounds, bless, cgroup_parent };
        return counts::run(&wanted, images, scratch.path()).await;
    }
    let mut targets = Vec::new();
    for given in &args.endpoints {
        targets.push(Target::connect(given).await?);
    }
    let mut peers = Vec::new();
    let started = start(&args, images, scratch.path(), &mut peers).await;
    let measured = match started {
        Ok(()) => with_peers(&args, images, scratch.path(), targets, &mut peers).await,
        Err(error) => Err(error),
    };
    for peer in peers {
        peer.stop().await;
    }
    pods::remove_control_groups(&args.cgroup_parent);
    let report = measured?;
    print!("{}", report.markdown());
    if let Some(file) = &args.page {
        page::put(file, &report.markdown())?;
    }
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{:#}\n", report.json()))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// Starts the daemons that are asked for.
async fn start(args: &Args, images: &images::Served, scratch: &Path, peers: &mut Vec<Peer>) -> Result<()> {
    if let Some(binary) = &args.pintle {
        peers.push(peers::pintle::start(binary, scratch).await?);
        if args.chain {
            peers.push(peers::pintle::start_with_chain(binary, scratch).await?);
        }
    }
    if args.containerd {
        peers.push(peers::containerd::start(scratch, &images.pause()).await?);
    }
    if args.crio {
        peers.push(peers::crio::start(scratch, &images.pause(), &images.hosts()).await?);
    }
    Ok(())
}

/// Measures, and removes the pods that are left.
async fn with_peers(
    args: &Args,
    images: &images::Served,
    scratch: &Path,
    mut targets: Vec<Target>,
    peers: &mut [Peer],
) -> Result<Report> {
    for peer in peers.iter() {
        targets.push(Target::connect(&peer.given).await?);
    }
    ensure!(!targets.is_empty(), "nothing to measure: give --endpoint, --pintle, --containerd or --crio");
    let image = match &args.image {
        Some(image) => image.clone(),
        None => images
            .busybox()
            .context("this machine has no static busybox (Debian: busybox-static); give --image")?,
    };
    let plan =
        pods::Plan { image, cgroup_parent: args.cgroup_parent.clone(), directory: scratch.join("pods") };
    let mut report = Report::new(&targets, &args.cgroup_parent);
    let measured = measure(args, &mut targets, peers, &plan, images, &mut report).await;
    for target in &targets {
        if let Err(error) = target.remove_pods().await {
            eprintln!("{}: removing what is left: {error:#}", target.name);
        }
    }
    measured.map(|()| report)
}

async fn measure(
    args: &Args,
    targets: &mut [Target],
    peers: &mut [Peer],
    plan: &pods::Plan,
    images: &images::Served,
    report: &mut Report,
) -> Result<()> {
    plan.prepare()?;
    for target in targets.iter() {
        target.pull_if_absent(&plan.image).await?;
        memory::idle(target, report);
    }
    installed(args, peers, report)?;
    for round in 0..args.rounds {
        for step in 0..targets.len() {
            let number = (round + step) % targets.len();
            let peer = number.checked_sub(args.endpoints.len()).and_then(|number| peers.get(number));
            eprintln!("round {}: {}", round + 1, targets[number].name);
            once(args, &targets[number], peer, plan, images, report).await?;
        }
    }
    for (target, peer) in targets[args.endpoints.len()..].iter_mut().zip(peers) {
        if args.restart_pods > 0 {
            eprintln!("{}: restart with {} pods", target.name, args.restart_pods);
            restart::measure(peer, target, plan, args.restart_pods, report).await?;
        }
    }
    for target in targets.iter().filter(|_| !args.growth.is_empty()) {
        eprintln!("{}: growth", target.name);
        growth::measure(target, plan, &args.growth, report).await?;
    }
    for target in targets.iter().filter(|_| args.endurance_secs > 0) {
        eprintln!("{}: endurance", target.name);
        let churn = std::time::Duration::from_secs(args.endurance_secs);
        let load = endurance::Load { churn, containers: 200, commands: 10_000 };
        endurance::measure(target, plan, load, report).await?;
    }
    if let Some(file) = &args.picture {
        let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
        growth::draw(report, &names, &args.growth, file)?;
    }
    Ok(())
}

/// Notes how large the files are that each runtime needs.
fn installed(args: &Args, peers: &[Peer], report: &mut Report) -> Result<()> {
    for peer in peers {
        let name = peer.given.name.as_str();
        let files = match name {
            "pintle" => args.pintle.iter().cloned().collect(),
            "containerd" => peers::containerd::files()?,
            "crio" => peers::crio::files()?,
            _ => continue,
        };
        let size = peers::installed_mb(&files);
        report.add("Installed", "files that have to be there, without a pause image (MB)", name, size);
    }
    Ok(())
}

/// One round of one runtime.
async fn once(
    args: &Args,
    target: &Target,
    peer: Option<&Peer>,
    plan: &pods::Plan,
    images: &images::Served,
    report: &mut Report,
) -> Result<()> {
    for network in args.network.iter().filter(|_| args.iterations > 0) {
        lifecycle::measure(target, plan, *network, args.iterations, report).await?;
    }
    let used = peer.map(|peer| move || peer.cpu_secs() + cpu::used_in(&plan.cgroup_parent));
    for concurrency in args.concurrency.iter().filter(|_| args.pods > 0) {
        let crowd = many::Crowd {
            count: args.pods,
            concurrency: *concurrency,
            idle_secs: args.idle_secs,
            cpu: used.as_ref().map(|used| used as &dyn Fn() -> f64),
            pull: images.to_pull().first(),
        };
        many::measure(target, plan, &crowd, report).await?;
    }
    if args.pulls > 0 {
        pulls::measure(target, images, args.pulls, &plan.directory, report).await?;
    }
    Ok(())
}
