//! How far a pull is: bars on a terminal, a line per finished layer in a pipe, nothing when asked to be quiet. All on standard error.

use super::human::{decimal_bytes, took};
use super::output::{printable, short_id};
use cri::node_v1::{LayerProgress, LayerState};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Shows one pull.
pub(crate) struct Progress {
    shown: Shown,
    image: String,
    began: Instant,
    /// Bytes of the layers that were downloaded, for the closing line.
    downloaded: u64,
}

enum Shown {
    Nothing,
    Lines { finished: BTreeMap<String, i32> },
    Bars { all: MultiProgress, whole: ProgressBar, layers: BTreeMap<String, ProgressBar> },
}

impl Progress {
    /// Shows nothing.
    pub(crate) fn silent() -> Progress {
        Progress::new(Shown::Nothing)
    }

    /// Bars when standard error is a terminal, otherwise lines.
    pub(crate) fn for_terminal() -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress::new(Shown::Lines { finished: BTreeMap::new() });
        }
        let all = MultiProgress::new();
        let whole = all.add(ProgressBar::new_spinner());
        whole.set_style(style("{spinner} {msg} {elapsed}"));
        whole.enable_steady_tick(Duration::from_millis(100));
        Progress::new(Shown::Bars { all, whole, layers: BTreeMap::new() })
    }

    fn new(shown: Shown) -> Progress {
        Progress { shown, image: String::new(), began: Instant::now(), downloaded: 0 }
    }

    /// Whether it is worth asking for the progress of each layer.
    pub(crate) fn wants_layers(&self) -> bool {
        !matches!(self.shown, Shown::Nothing)
    }

    /// The pull starts.
    pub(crate) fn begin(&mut self, image: &str) {
        self.image = printable(image);
        match &self.shown {
            Shown::Nothing => {}
            Shown::Lines { .. } => eprintln!("pulling {}", self.image),
            Shown::Bars { whole, .. } => whole.set_message(format!("pulling {}", self.image)),
        }
    }

    /// News of the layers.
    pub(crate) fn update(&mut self, news: &[LayerProgress]) {
        let present = |layer: &&LayerProgress| layer.state() != LayerState::LayerAlreadyPresent;
        self.downloaded = news.iter().filter(present).map(|layer| layer.downloaded_bytes).sum();
        match &mut self.shown {
            Shown::Nothing => {}
            Shown::Lines { finished } => news.iter().for_each(|layer| print_when_finished(finished, layer)),
            Shown::Bars { all, layers, .. } => {
                for layer in news {
                    let bar = layers.entry(layer.digest.clone()).or_insert_with(|| new_bar(all, layer));
                    move_bar(bar, layer);
                }
            }
        }
    }

    /// The pull is over.
    pub(crate) fn end(self, well: bool) {
        let took = took(self.began.elapsed());
        let summary = match self.downloaded {
            0 => format!("pulled {} in {took}", self.image),
            bytes => format!("pulled {} in {took} ({})", self.image, decimal_bytes(bytes)),
        };
        if let Shown::Bars { all, whole, layers } = &self.shown {
            layers.values().for_each(ProgressBar::finish_and_clear);
            whole.finish_and_clear();
            let _ = all.clear();
        }
        if well && self.wants_layers() {
            eprintln!("{summary}");
        }
    }
}

fn print_when_finished(finished: &mut BTreeMap<String, i32>, layer: &LayerProgress) {
    let word = match layer.state() {
        LayerState::LayerDone => "done",
        LayerState::LayerAlreadyPresent => "already here",
        LayerState::LayerWaiting | LayerState::LayerDownloading | LayerState::LayerUnpacking => return,
    };
    if finished.insert(layer.digest.clone(), layer.state).is_none() {
        eprintln!(
            "  layer {}: {word}, {}",
            short_id(&printable(&layer.digest)),
            decimal_bytes(layer.total_bytes)
        );
    }
}

fn new_bar(all: &MultiProgress, layer: &LayerProgress) -> ProgressBar {
    let bar = all.add(ProgressBar::new(layer.total_bytes));
    bar.set_style(style("  {prefix} {msg:12} [{bar:30}] {decimal_bytes:>10} / {decimal_total_bytes:10} {decimal_bytes_per_sec}"));
    bar.set_prefix(short_id(&printable(&layer.digest)).to_owned());
    bar
}

fn move_bar(bar: &ProgressBar, layer: &LayerProgress) {
    let (word, position) = match layer.state() {
        LayerState::LayerWaiting => ("waiting", layer.downloaded_bytes),
        LayerState::LayerDownloading => ("downloading", layer.downloaded_bytes),
        LayerState::LayerUnpacking => ("unpacking", layer.downloaded_bytes),
        LayerState::LayerDone => ("done", layer.total_bytes),
        LayerState::LayerAlreadyPresent => ("already here", layer.total_bytes),
    };
    bar.set_length(layer.total_bytes);
    bar.set_message(word);
    bar.set_position(position);
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a mistake in one falls back to the plain bar and not to a panic.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        assert!(ProgressStyle::with_template("{spinner} {msg} {elapsed}").is_ok());
        let bar = new_bar(&MultiProgress::new(), &LayerProgress::default());
        move_bar(
            &bar,
            &LayerProgress { total_bytes: 10, downloaded_bytes: 4, state: 1, ..Default::default() },
        );
        assert_eq!((bar.position(), bar.length()), (4, Some(10)));
    }
}
