//! What is kept between two looks at a cgroup: its open files, and how much processor time it had used.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cgroup::{CgroupError, Host, Meter, Usage};

/// The shortest time over which a rate is worth computing.
const RATE_WINDOW: Duration = Duration::from_millis(100);

/// Of how many groups at most the files stay open: the rest of what the daemon may open is for connections, pulls and shims.
const OPEN_METERS: usize = 4096;

/// The looks at one kind of groups.
#[derive(Debug)]
pub(crate) struct Samples<Id>(Mutex<HashMap<Id, Sample>>);

#[derive(Debug, Default)]
struct Sample {
    meter: Option<Arc<Meter>>,
    cpu: Option<CpuSample>,
}

#[derive(Debug, Clone, Copy)]
struct CpuSample {
    at: Instant,
    used_ns: u64,
    rate: Option<u64>,
}

/// What a look saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) usage: Usage,
    pub(crate) nano_cores: Option<u64>,
    pub(crate) meter: Arc<Meter>,
}

impl<Id> Default for Samples<Id> {
    fn default() -> Self {
        Samples(Mutex::default())
    }
}

impl<Id: Clone + Eq + Hash> Samples<Id> {
    /// Looks at the group `path`; `None` where there is none.
    pub(crate) fn look(&self, host: &Host, id: &Id, path: &str) -> Option<Seen> {
        let known = self.with(id, |sample| sample.meter.clone());
        let read = match &known {
            Some(meter) => meter.read(),
            None => Err(CgroupError::NotFound { path: path.to_owned() }),
        };
        let (usage, meter) = match (read, known) {
            (Ok(usage), Some(meter)) => (usage, meter),
            // Not looked at yet, or removed and made again since.
            _ => {
                let meter = Arc::new(host.open(path).ok()?.meter().ok()?);
                let usage = meter.read().ok()?;
                self.keep(id, &meter);
                (usage, meter)
            }
        };
        let nano_cores = self.rate(id, usage.cpu_ns);
        Some(Seen { usage, nano_cores, meter })
    }

    /// Forgets what `wanted` does not want, and closes its files.
    pub(crate) fn keep_only(&self, wanted: impl Fn(&Id) -> bool) {
        self.lock().retain(|id, _| wanted(id));
    }

    fn keep(&self, id: &Id, meter: &Arc<Meter>) {
        let mut samples = self.lock();
        if samples.len() < OPEN_METERS {
            samples.entry(id.clone()).or_default().meter = Some(meter.clone());
        }
    }

    /// The rate since the last look; two looks that are too near to one another give the same answer.
    fn rate(&self, id: &Id, used_ns: u64) -> Option<u64> {
        let now = Instant::now();
        self.with(id, |sample| {
            let rate = match sample.cpu {
                Some(last) if now - last.at < RATE_WINDOW => return last.rate,
                Some(last) => Some(nano_cores(used_ns.saturating_sub(last.used_ns), now - last.at)),
                None => None,
            };
            sample.cpu = Some(CpuSample { at: now, used_ns, rate });
            rate
        })
    }

    fn with<T>(&self, id: &Id, work: impl FnOnce(&mut Sample) -> T) -> T {
        work(self.lock().entry(id.clone()).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Id, Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Billionths of a core: nanoseconds of CPU for each second of the clock.
fn nano_cores(used_ns: u64, elapsed: Duration) -> u64 {
    let nano_cores = u128::from(used_ns) * 1_000_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(nano_cores).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of this test alone, with a process in each, and gone when it ends.
    struct Groups {
        host: Host,
        names: Vec<String>,
        processes: Vec<std::process::Child>,
    }

    impl Groups {
        fn new(count: usize) -> Option<Groups> {
            let host = Host::detect().ok()?;
            let mut groups = Groups { host, names: Vec::new(), processes: Vec::new() };
            for number in 0..count {
                let name = format!("pintle-test-samples-{}-{number}", std::process::id());
                let group = groups.host.create(&name).ok()?;
                groups.names.push(name);
                let sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
                group.add_process(sleeper.id().cast_signed()).unwrap();
                groups.processes.push(sleeper);
            }
            Some(groups)
        }
    }

    impl Drop for Groups {
        fn drop(&mut self) {
            for process in &mut self.processes {
                let _ = process.kill();
                let _ = process.wait();
            }
            for name in &self.names {
                let _ = self.host.delete(name, Duration::from_secs(5));
            }
        }
    }

    /// What takes the time of ListContainerStats. The bound is that of the whole call.
    #[test]
    fn a_hundred_groups_are_looked_at_within_ten_milliseconds() {
        let Some(groups) = Groups::new(100) else {
            println!("SKIPPED: cannot make control groups here");
            return;
        };
        let samples = Samples::<usize>::default();
        let look = || {
            let begun = Instant::now();
            for (number, name) in groups.names.iter().enumerate() {
                assert!(samples.look(&groups.host, &number, name).is_some());
            }
            begun.elapsed()
        };
        let first = look();
        let mut times: Vec<Duration> = (0..31).map(|_| look()).collect();
        times.sort_unstable();
        println!("100 groups: first {first:?}, median {:?}, most {:?}", times[15], times[30]);
        // An emulated processor, as that of `cargo xtask vm`, takes about ten times as long.
        let emulated = std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU TCG"));
        let bound = Duration::from_millis(if emulated { 100 } else { 10 });
        // Of what others do on this machine the quickest look knows least.
        assert!(times[0] <= bound, "{times:?}");
        samples.keep_only(|number| *number == 7);
        assert_eq!(samples.lock().len(), 1);
    }

    #[test]
    fn a_group_that_is_made_again_is_found_again() {
        let Some(groups) = Groups::new(1) else {
            println!("SKIPPED: cannot make control groups here");
            return;
        };
        let name = format!("{}/below", groups.names[0]);
        let samples = Samples::<usize>::default();
        assert!(samples.look(&groups.host, &0, &name).is_none(), "there is none");
        for _ in 0..2 {
            groups.host.create(&name).unwrap();
            assert!(samples.look(&groups.host, &0, &name).is_some());
            groups.host.delete(&name, Duration::from_secs(5)).unwrap();
            assert!(samples.look(&groups.host, &0, &name).is_none(), "not what its files said last");
        }
    }

    #[test]
    fn a_busy_core_is_a_billion() {
        assert_eq!(nano_cores(500_000_000, Duration::from_millis(500)), 1_000_000_000);
        assert_eq!(nano_cores(0, Duration::ZERO), 0);
    }
}
