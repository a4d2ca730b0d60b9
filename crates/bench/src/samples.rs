//! Samples of one measure, and what is said of them.

/// All samples of one measure of one runtime.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub(crate) fn add(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The samples as they came.
    pub(crate) fn all(&self) -> &[f64] {
        &self.0
    }

    /// The median; `None` without samples.
    pub(crate) fn median(&self) -> Option<f64> {
        self.percentile(50.0)
    }

    /// The value below which this part of the samples lies, with linear interpolation between neighbours.
    pub(crate) fn percentile(&self, percent: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let place = percent / 100.0 * sorted.len().checked_sub(1)? as f64;
        let (below, above) = (*sorted.get(place.floor() as usize)?, *sorted.get(place.ceil() as usize)?);
        Some(below + (above - below) * place.fract())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate() {
        let samples = Samples(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!(samples.median(), Some(2.5));
        assert_eq!(samples.percentile(0.0), Some(1.0));
        assert_eq!(samples.percentile(100.0), Some(4.0));
        assert_eq!(Samples::default().median(), None);
        assert_eq!(Samples(vec![7.0]).percentile(95.0), Some(7.0));
    }
}
