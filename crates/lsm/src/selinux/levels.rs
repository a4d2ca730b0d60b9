//! The levels of pods: two categories each, which no other living pod has, so that the policy keeps pods apart.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use model::id::PodId;

/// Categories that a policy has, by the convention of all of them: c0 to c1023.
const CATEGORIES: u32 = 1024;

/// How often a pair is drawn before it is looked for one by one.
const DRAWS: u32 = 64;

/// Which level belongs to which pod.
#[derive(Debug, Default)]
pub struct Levels(Mutex<HashMap<PodId, String>>);

/// Every pair of categories is in use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("all 523776 pairs of SELinux categories are in use by pods")]
pub struct NoLevel;

impl Levels {
    /// Gives the pod a level that no other has. One that has a level keeps it.
    ///
    /// # Errors
    /// There are as many pods as pairs.
    pub fn allocate(&self, pod: &PodId) -> Result<String, NoLevel> {
        self.allocate_by(pod, random)
    }

    fn allocate_by(&self, pod: &PodId, mut random: impl FnMut() -> u32) -> Result<String, NoLevel> {
        let mut levels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(level) = levels.get(pod) {
            return Ok(level.clone());
        }
        let free =
            |level: &String, levels: &HashMap<PodId, String>| !levels.values().any(|used| used == level);
        let mut drawn = (0..DRAWS).filter_map(|_| pair(random() % CATEGORIES, random() % CATEGORIES));
        let level = drawn.find(|level| free(level, &levels)).or_else(|| {
            let all = (0..CATEGORIES).flat_map(|low| (low + 1..CATEGORIES).map(move |high| (low, high)));
            let used: std::collections::HashSet<&String> = levels.values().collect();
            all.filter_map(|(low, high)| pair(low, high)).find(|level| !used.contains(level))
        });
        let level = level.ok_or(NoLevel)?;
        levels.insert(pod.clone(), level.clone());
        Ok(level)
    }

    /// The pod has this level already: it was recorded, or its request names it.
    pub fn keep(&self, pod: &PodId, level: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.clone(), level.to_owned());
    }

    /// The pod is gone.
    pub fn release(&self, pod: &PodId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
    }
}

/// In the order in which the kernel writes them, so that equal levels are equal texts.
fn pair(one: u32, other: u32) -> Option<String> {
    let (low, high) = (one.min(other), one.max(other));
    (low != high).then(|| format!("s0:c{low},c{high}"))
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Too early for the pool, or a signal: what is drawn is compared with what is in use in any case.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(number: u32) -> PodId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        PodId::from_random(bytes)
    }

    #[test]
    fn no_two_pods_have_the_same() {
        let levels = Levels::default();
        let given: std::collections::HashSet<String> =
            (0..2000).map(|number| levels.allocate(&pod(number)).unwrap()).collect();
        assert_eq!(given.len(), 2000);
        assert!(given.contains(&levels.allocate(&pod(7)).unwrap()), "a pod keeps its level");
        assert!(given.iter().all(|level| {
            let (low, high) = level.strip_prefix("s0:c").unwrap().split_once(",c").unwrap();
            let (low, high): (u32, u32) = (low.parse().unwrap(), high.parse().unwrap());
            low < high && high < 1024
        }));
    }

    #[test]
    fn what_was_recorded_is_not_given_again() {
        let levels = Levels::default();
        levels.keep(&pod(1), "s0:c3,c5");
        // Draws the recorded pair first, from either end, and then twice the same category.
        let mut draws = [5, 3, 3, 5, 7, 7, 8, 9].into_iter();
        assert_eq!(levels.allocate_by(&pod(2), || draws.next().unwrap()).unwrap(), "s0:c8,c9");
        levels.release(&pod(1));
        let mut draws = [3, 5].into_iter();
        assert_eq!(levels.allocate_by(&pod(3), || draws.next().unwrap()).unwrap(), "s0:c3,c5");
        // A poor source of numbers ends in looking for one.
        assert_eq!(levels.allocate_by(&pod(4), || 1).unwrap(), "s0:c0,c1");
    }
}
