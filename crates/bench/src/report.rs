//! Everything that was measured, as tables to read and as JSON to compare.

use crate::samples::Samples;
use crate::target::Target;
use serde_json::{Value, json};

/// Samples by section, measure and runtime, in the order in which they first came.
pub(crate) struct Report {
    /// Name and version of each runtime.
    runtimes: Vec<(String, String)>,
    rows: Vec<Row>,
    /// By which the pods' processes are found.
    pub(crate) cgroup_parent: String,
}

struct Row {
    section: String,
    measure: String,
    runtime: String,
    samples: Samples,
}

impl Report {
    /// An empty report of these runtimes.
    pub(crate) fn new(targets: &[Target], cgroup_parent: &str) -> Report {
        let runtimes = targets.iter().map(|target| (target.name.clone(), target.version.clone())).collect();
        Report { runtimes, rows: Vec::new(), cgroup_parent: cgroup_parent.to_owned() }
    }

    /// A report of nothing, for samples that nobody reads.
    pub(crate) fn nothing() -> Report {
        Report { runtimes: Vec::new(), rows: Vec::new(), cgroup_parent: String::new() }
    }

    /// The median of a measure of a runtime.
    pub(crate) fn median(&self, section: &str, measure: &str, runtime: &str) -> Option<f64> {
        let row = |row: &&Row| row.section == section && row.measure == measure && row.runtime == runtime;
        self.rows.iter().find(row).and_then(|row| row.samples.median())
    }

    /// Adds a sample.
    pub(crate) fn add(&mut self, section: &str, measure: &str, runtime: &str, sample: f64) {
        let same =
            |row: &&mut Row| row.section == section && row.measure == measure && row.runtime == runtime;
        match self.rows.iter_mut().find(same) {
            Some(row) => row.samples.add(sample),
            None => {
                let mut samples = Samples::default();
                samples.add(sample);
                let [section, measure, runtime] = [section, measure, runtime].map(str::to_owned);
                self.rows.push(Row { section, measure, runtime, samples });
            }
        }
    }

    /// A table per section: a row per measure, a column per runtime, median and 95th percentile in each cell; and what the first one takes
    /// as a part of what the best of the others does, those of its own name left out.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for (name, version) in &self.runtimes {
            text.push_str(&format!("- **{name}**: {version}\n"));
        }
        text.push_str("\nMedian / 95th percentile over all rounds; a lone figure where there are fewer than 5 samples.\n");
        for section in distinct(self.rows.iter().map(|row| &row.section)) {
            text.push_str(&format!("\n### {section}\n\n| |"));
            self.runtimes.iter().for_each(|(name, _)| text.push_str(&format!(" {name} |")));
            text.push_str(if self.has_others() { " to the best other |" } else { "" });
            text.push_str("\n|---|");
            self.runtimes.iter().for_each(|_| text.push_str("---:|"));
            text.push_str(if self.has_others() { "---:|" } else { "" });
            let of_section = || self.rows.iter().filter(|row| row.section == *section);
            for measure in distinct(of_section().map(|row| &row.measure)) {
                text.push_str(&format!("\n| {measure} |"));
                for (name, _) in &self.runtimes {
                    let row = of_section().find(|row| row.measure == *measure && row.runtime == *name);
                    text.push_str(&format!(" {} |", row.map_or("-".into(), |row| cell(&row.samples))));
                }
                if self.has_others() {
                    let ratio = self.to_best_other(section, measure);
                    text.push_str(&format!(" {} |", ratio.map_or("-".into(), digits)));
                }
            }
            text.push('\n');
        }
        text
    }

    fn others(&self) -> impl Iterator<Item = &String> {
        let first = self.runtimes.first().map_or("", |(name, _)| name);
        self.runtimes.iter().map(|(name, _)| name).filter(move |name| !name.starts_with(first))
    }

    fn has_others(&self) -> bool {
        self.others().next().is_some()
    }

    /// The first runtime's median over the lowest of the others'.
    fn to_best_other(&self, section: &str, measure: &str) -> Option<f64> {
        let first = self.median(section, measure, &self.runtimes.first()?.0)?;
        let best = self.others().filter_map(|name| self.median(section, measure, name)).reduce(f64::min)?;
        (best > 0.0).then_some(first / best)
    }

    /// The same with every sample.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "section": row.section,
                "measure": row.measure,
                "runtime": row.runtime,
                "median": row.samples.median(),
                "p95": row.samples.percentile(95.0),
                "samples": row.samples.all(),
            })
        });
        let runtimes =
            self.runtimes.iter().map(|(name, version)| json!({ "name": name, "version": version }));
        json!({ "runtimes": runtimes.collect::<Vec<_>>(), "rows": rows.collect::<Vec<_>>() })
    }
}

fn distinct<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let mut seen = Vec::new();
    for text in texts {
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    seen
}

fn cell(samples: &Samples) -> String {
    match (samples.median(), samples.percentile(95.0)) {
        (Some(median), Some(p95)) if samples.all().len() >= 5 => {
            format!("{} / {}", digits(median), digits(p95))
        }
        (Some(median), _) => digits(median),
        (None, _) => "-".into(),
    }
}

/// Three digits, as many as such measurements are worth.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_per_measure_and_a_column_per_runtime() {
        let runtimes = vec![("a".into(), "A 1".into()), ("b".into(), "B 2".into())];
        let mut report = Report { runtimes, rows: Vec::new(), cgroup_parent: String::new() };
        for sample in 1..=5 {
            report.add("S", "m", "a", f64::from(sample));
        }
        report.add("S", "n", "b", 123.4);
        let text = report.markdown();
        assert!(text.contains("| m | 3.00 / 4.80 | - | - |\n| n | - | 123 | - |"), "{text}");
        report.add("S", "n", "a", 61.7);
        assert!(report.markdown().contains("| n | 61.7 | 123 | 0.50 |"), "{}", report.markdown());
        assert_eq!(report.json()["rows"][0]["median"], 3.0);
    }
}
