//! Contenders in turns, and what is made of their figures.

use std::time::Duration;

use crate::process::Cost;
use crate::{Failure, remark};

/// Something that is measured again and again.
pub(crate) struct Contender<'a> {
    pub(crate) name: String,
    run: Box<dyn FnMut() -> Result<Cost, Failure> + 'a>,
    costs: Vec<Cost>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(name: impl Into<String>, run: impl FnMut() -> Result<Cost, Failure> + 'a) -> Self {
        Self { name: name.into(), run: Box::new(run), costs: Vec::new() }
    }

    pub(crate) fn median(&self) -> f64 {
        median(self.seconds())
    }

    pub(crate) fn fastest(&self) -> f64 {
        self.seconds().into_iter().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn slowest(&self) -> f64 {
        self.seconds().into_iter().fold(0.0, f64::max)
    }

    /// The highest peak of all runs, in KiB.
    pub(crate) fn peak(&self) -> Option<u64> {
        self.costs.iter().filter_map(|cost| cost.peak).max()
    }

    /// The median, over the rounds, of my time through that of `other` in the same round.
    pub(crate) fn ratio(&self, other: &Self) -> f64 {
        median(self.seconds().iter().zip(other.seconds()).map(|(mine, theirs)| mine / theirs).collect())
    }

    fn seconds(&self) -> Vec<f64> {
        self.costs.iter().map(|cost| cost.wall).map(|wall: Duration| wall.as_secs_f64()).collect()
    }
}

/// Runs all of them in turns (A B A B), so that whatever else the machine does meets each alike. The first round is
/// not counted.
pub(crate) fn run(contenders: &mut [Contender<'_>], rounds: u32) -> Result<(), Failure> {
    for round in 0..=rounds {
        for contender in contenders.iter_mut() {
            let cost = (contender.run)()?;
            remark(format_args!("round {round} of {rounds}, {}: {:.2} s", contender.name, cost.wall.as_secs_f64()));
            if round > 0 {
                contender.costs.push(cost);
            }
        }
    }
    Ok(())
}

/// The middle one, or the mean of the two in the middle; NaN of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let high = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
    if values.len() % 2 == 1 {
        return high;
    }
    let low = (values.len() / 2).checked_sub(1).and_then(|at| values.get(at)).copied().unwrap_or(f64::NAN);
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![7.0]), 7.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn ratios_are_taken_round_by_round_and_the_first_is_left_out() {
        let cost = |seconds| Cost { wall: Duration::from_secs(seconds), peak: Some(seconds) };
        let (mut mine, mut theirs) = ([100, 2, 8, 6].into_iter(), [1, 1, 2, 3].into_iter());
        let mut both = [
            Contender::new("mine", || Ok(cost(mine.next().unwrap()))),
            Contender::new("theirs", || Ok(cost(theirs.next().unwrap()))),
        ];
        run(&mut both, 3).unwrap();
        let [mine, theirs] = both;
        assert_eq!((mine.ratio(&theirs), mine.median(), mine.peak()), (2.0, 6.0, Some(8)));
        assert_eq!((mine.fastest(), mine.slowest()), (2.0, 8.0));
    }
}
