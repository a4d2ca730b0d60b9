//! What the daemon says of itself: one line an event on standard error, for people or for machines.

use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::{Log, LogFormat, LogLevel};
use crate::observe::{self, Observer};

/// The handle by which the level is changed while the daemon runs.
#[derive(Debug, Clone)]
pub(super) struct Logging(reload::Handle<Targets, Registry>);

/// Begins logging, and observing what is done.
pub(super) fn begin(log: &Log, observer: Observer) -> Logging {
    let (level, handle) = reload::Layer::new(filter(log.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let observed = observer.with_filter(filter_fn(observe::is_observed));
    // A second daemon in one process, as in a test, keeps the first one's subscriber.
    let _ = tracing_subscriber::registry().with(lines.with_filter(level)).with(observed).try_init();
    Logging(handle)
}

impl Logging {
    /// From now on only what is as important as this is written.
    pub(super) fn level(&self, level: LogLevel) {
        let _ = self.0.reload(filter(level));
    }
}

/// The level is for what this program says; libraries below it tell every frame, which nobody who debugs pods wants to read.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let libraries = ["h2", "hyper", "hyper_util", "rustls", "tonic", "tower"];
    let quiet = libraries.map(|library| (library, level.min(LevelFilter::WARN)));
    // A line names the call and the trace that it belongs to, whatever its own level.
    let spans = [observe::CALL, observe::STAGE].map(|spans| (spans, LevelFilter::INFO));
    Targets::new().with_default(level).with_targets(quiet).with_targets(spans)
}
