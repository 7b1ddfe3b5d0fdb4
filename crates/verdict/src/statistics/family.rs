//! Verdicts over families of comparisons: who is called different when many are compared at once.
//!
//! A comparison is called different at level alpha when two things hold:
//!
//! 1. The bootstrap interval of the paired ratio, of confidence 1 - alpha, lies wholly outside the
//!    noise floor (3 %, or the interval of the reference against itself). Alone it would promise
//!    too much: a bootstrap cannot reach beyond the range of its n values, so however small
//!    alpha is, it calls n values on the same side different, which chance does in 2 x 0.5^n.
//! 2. An exact test of the rounds rejects at alpha. In each round the reference runs twice, and its
//!    second run is a control: if the model were the reference under another name, the three
//!    runs of a round would be exchangeable, and the model's would be the highest of them in one
//!    round out of three. The number of such rounds is then binomial whatever the noise looks
//!    like, as in the sign test (which it becomes, with one half, where there is no control).
//!    Of two models neither of which is the reference, one has to lead by more than the reference
//!    differs from itself: one round out of four, if the noise of all is alike. Two-sided, so all
//!    n rounds give p = 2 x 3^-n or 2 x 4^-n, where the sign test would give 2 x 2^-n.
//!
//! The smallest alpha for which both hold takes the place of a p-value, and Holm's step-down
//! (Scandinavian Journal of Statistics 6, 1979) adjusts it: the chance of one or more false calls
//! in the whole family is at most 5 %, whatever depends on what. The p-value of a mean or of ranks
//! (t, Wilcoxon) is not used: the estimate is a median, and the noise is skewed.

use super::bootstrap::{self, binomial_tail};
use super::{Unpaired, median};

/// Chance of one or more false calls in a family.
const ALPHA: f64 = 0.05;

/// Who else ran in the round, and so how often chance alone wins it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// Two runs: one wins every other round.
    Two,
    /// A model, the reference and the reference's second run: to win is to beat both.
    WithReference,
    /// Two models, with the reference's two runs beside them: to win is to lead by more than those
    /// two are apart.
    BesideReference,
}

impl Match {
    /// Share of rounds that one side wins by chance.
    fn chance(self) -> f64 {
        match self {
            Match::Two => 1.0 / 2.0,
            Match::WithReference => 1.0 / 3.0,
            Match::BesideReference => 1.0 / 4.0,
        }
    }

    /// Whether a round is won upwards, from the logarithms of the two ratios of that round: the
    /// pair's, and that of the reference's second run to its first.
    fn won(self, pair: f64, control: f64) -> bool {
        match self {
            Match::Two => pair > 0.0,
            Match::WithReference => pair > control.max(0.0),
            Match::BesideReference => pair > control.abs(),
        }
    }
}

/// One comparison of a family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contrast {
    /// The smallest level at which it would be called different if it stood alone.
    alpha: f64,
    /// The figure is above the one that it is compared with.
    upwards: bool,
}

impl Contrast {
    /// Of two figures measured in the same rounds. `rounds` holds, for each round, the logarithm of
    /// the ratio and that of the control (any number with [`Match::Two`]); `threshold` is the noise
    /// floor (0.03 = 3 %).
    pub fn paired(rounds: &[(f64, f64)], kind: Match, threshold: f64) -> Contrast {
        let logs: Vec<f64> = rounds.iter().map(|round| round.0).collect();
        let upwards = median(&logs).is_some_and(|median| median > 0.0);
        let sign = if upwards { 1.0 } else { -1.0 };
        let won = |(pair, control): &&(f64, f64)| kind.won(sign * pair, sign * control);
        let wins = rounds.iter().filter(won).count();
        let exact = (2.0 * binomial_tail(rounds.len(), kind.chance(), wins)).min(1.0);
        let logs: Vec<f64> = logs.into_iter().map(|log| sign * log).collect();
        let interval = bootstrap::tail_up_to(&logs, threshold.ln_1p());
        Contrast { alpha: exact.max(interval), upwards }
    }

    /// The same comparison the other way round.
    pub fn turned(self) -> Contrast {
        Contrast { upwards: !self.upwards, ..self }
    }

    /// Of two runs that share no rounds, B to A: the rank-sum test (Mann and Whitney, 1947) takes
    /// the place of the count of rounds. It tests whether B is above A by more than the threshold.
    pub fn unpaired(a: &[f64], b: &[f64], ratio: &Unpaired, threshold: f64) -> Contrast {
        let upwards = ratio.ratio.median > 1.0;
        let (low, high) = if upwards { (a, b) } else { (b, a) };
        let raised: Vec<f64> = low.iter().map(|value| value * (1.0 + threshold)).collect();
        let exact = (2.0 * rank_sum_tail(&raised, high)).min(1.0);
        let interval = ratio.tail_up_to(threshold.ln_1p(), upwards);
        Contrast { alpha: exact.max(interval), upwards }
    }
}

/// P(as many pairs or more in which the value of `b` is the greater), if both came from the same
/// distribution.
pub fn rank_sum_tail(a: &[f64], b: &[f64]) -> f64 {
    /// Up to here the exact distribution is counted; its counts still fit an f64.
    const EXACT_MAX: usize = 200;
    let pairs = a.len() * b.len();
    let greater = a.iter().map(|x| b.iter().filter(|y| *y > x).count()).sum::<usize>();
    if pairs == 0 {
        return 1.0;
    }
    if a.len() + b.len() > EXACT_MAX {
        // Hoeffding's bound for U-statistics (JASA 58, 1963, section 5): never too small.
        let lead = (greater as f64 / pairs as f64 - 0.5).max(0.0);
        return (-2.0 * a.len().min(b.len()) as f64 * lead * lead).exp();
    }
    // Ways to reach each count: the coefficients of the Gaussian binomial, factor by factor.
    let mut ways = vec![0.0_f64; pairs + 1];
    ways[0] = 1.0;
    for i in 1..=a.len() {
        let up = b.len() + i;
        (up..=pairs).rev().for_each(|u| ways[u] -= ways[u - up]);
        (i..=pairs).for_each(|u| ways[u] += ways[u - i]);
    }
    ways[greater..].iter().sum::<f64>() / ways.iter().sum::<f64>()
}

/// Holm's adjusted p-values: as R's `p.adjust(p, method = "holm")`.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&i, &j| p[i].total_cmp(&p[j]));
    let mut adjusted = vec![1.0; p.len()];
    let mut largest = 0.0_f64;
    for (step, &i) in order.iter().enumerate() {
        largest = largest.max(p[i] * (p.len() - step) as f64).min(1.0);
        adjusted[i] = largest;
    }
    adjusted
}

/// Whether two runs of so many rounds, none of whose rounds overlap, are enough for one call in a
/// family of so many comparisons.
pub fn separable_unpaired(a: usize, b: usize, comparisons: usize) -> bool {
    let orders: f64 = (1..=b).map(|i| (a + i) as f64 / i as f64).product();
    2.0 / orders * comparisons as f64 <= ALPHA
}

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Clearly more than what it is compared with.
    More,
    /// Clearly less.
    Less,
    /// Not shown to differ: `~`.
    Alike,
}

impl Verdict {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::More => "more",
            Verdict::Less => "less",
            Verdict::Alike => "~",
        }
    }
}

/// The verdicts of a whole family.
pub fn verdicts(family: &[Contrast]) -> Vec<Verdict> {
    let adjusted = holm(&family.iter().map(|contrast| contrast.alpha).collect::<Vec<_>>());
    let verdict = |(contrast, p): (&Contrast, f64)| match (p <= ALPHA, contrast.upwards) {
        (true, true) => Verdict::More,
        (true, false) => Verdict::Less,
        (false, _) => Verdict::Alike,
    };
    family.iter().zip(adjusted).map(verdict).collect()
}

/// Whether so many rounds, all won, are enough for one call in a family of so many comparisons.
pub fn separable(rounds: usize, comparisons: usize, kind: Match) -> bool {
    2.0 * kind.chance().powi(rounds as i32) * comparisons as f64 <= ALPHA
}

/// Fewest rounds with which a family of so many comparisons can lead to a call.
pub fn rounds_needed(comparisons: usize, kind: Match) -> usize {
    (1..).find(|&rounds| separable(rounds, comparisons, kind)).unwrap_or(usize::MAX)
}

/// Ranks with ties, as (best, worst) possible place counted from 1. `better[i][j]` says that i is
/// clearly better than j; what is not clear is a tie, so places overlap: 1, 2-4, 2-4, 2-4, 5.
pub fn tied_ranks(better: &[Vec<bool>]) -> Vec<(usize, usize)> {
    let n = better.len();
    (0..n)
        .map(|i| {
            let above = (0..n).filter(|&j| better[j][i]).count();
            let below = (0..n).filter(|&j| better[i][j]).count();
            (1 + above, n - below)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::unpaired_ratio;

    fn near(got: &[f64], wanted: &[f64]) {
        let close = got.iter().zip(wanted).all(|(g, w)| (g - w).abs() < 1e-9);
        assert!(close && got.len() == wanted.len(), "{got:?} {wanted:?}");
    }

    /// The example of the Wikipedia article on the method (p of 0.01, 0.04, 0.03, 0.005), the
    /// values of R's `p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")`, and ties and the limit 1.
    #[test]
    fn holm_matches_published_examples_and_r() {
        near(&holm(&[0.01, 0.04, 0.03, 0.005]), &[0.03, 0.06, 0.06, 0.02]);
        near(&holm(&[0.01, 0.02, 0.03, 0.04, 0.05]), &[0.05, 0.08, 0.09, 0.09, 0.09]);
        near(&holm(&[0.5, 0.5, 0.9]), &[1.0, 1.0, 1.0]);
        near(&holm(&[]), &[]);
    }

    /// Tails of the binomial as R's `pbinom(k - 1, n, p, lower.tail = FALSE)` gives them, worked
    /// out by hand: (1/2)^8 x (1 + 8), 3^-8 x (1 + 16), 4^-8 x (1 + 24).
    #[test]
    fn exact_tails_are_the_binomial_ones() {
        let tail = |kind: Match, wins| binomial_tail(8, kind.chance(), wins);
        near(&[tail(Match::Two, 7)], &[9.0 / 256.0]);
        near(&[tail(Match::WithReference, 7)], &[17.0 / 6561.0]);
        near(&[tail(Match::BesideReference, 7)], &[25.0 / 65536.0]);
    }

    /// Chance wins one round in two, three and four: counted over all orders of four distinct runs
    /// (model, other model, reference, its second run), which are equally likely under the null.
    #[test]
    fn chances_are_those_of_exchangeable_runs() {
        let (mut with, mut beside, mut orders) = (0, 0, 0);
        let runs = [0.0, 1.0, 3.0, 7.0_f64]; // all differences differ, so nothing is a draw
        for code in 0..256_usize {
            let pick: Vec<usize> = (0..4).map(|i| code >> (2 * i) & 3).collect();
            if (0..4).any(|i| pick[..i].contains(&pick[i])) {
                continue;
            }
            let [one, two, first, second] = [0, 1, 2, 3].map(|i| runs[pick[i]]);
            orders += 1;
            with += u32::from(Match::WithReference.won(one - first, second - first));
            beside += u32::from(Match::BesideReference.won(one - two, second - first));
        }
        assert_eq!((orders, with), (24, 8));
        assert_eq!(beside, 6);
    }

    /// R 4.2: `wilcox.test(c(6,7,8,9,10), 1:5, alternative = "greater")` gives p = 1/252; with
    /// `c(3.5,7,8,9,10)` W = 23 and p = 4/252. The table of Mann and Whitney (1947) has
    /// P(U <= 2) = 0.1 for three and three: 2 of 20.
    #[test]
    fn rank_sums_match_the_published_table() {
        let five = [1.0, 2.0, 3.0, 4.0, 5.0];
        near(&[rank_sum_tail(&five, &[6.0, 7.0, 8.0, 9.0, 10.0])], &[1.0 / 252.0]);
        near(&[rank_sum_tail(&five, &[3.5, 7.0, 8.0, 9.0, 10.0])], &[4.0 / 252.0]);
        near(&[rank_sum_tail(&[1.0, 2.0, 4.0], &[3.0, 5.0, 6.0])], &[2.0 / 20.0]);
        near(&[rank_sum_tail(&five, &[0.0; 5])], &[1.0]);
        near(&[rank_sum_tail(&[], &five)], &[1.0]);
        let many: Vec<f64> = (0..150).map(f64::from).collect();
        assert!(rank_sum_tail(&many, &many) > 0.5);
        assert!(rank_sum_tail(&many, &many.iter().map(|v| v + 100.0).collect::<Vec<_>>()) < 0.01);
    }

    #[test]
    fn few_rounds_cannot_carry_a_large_family() {
        // One comparison by the sign test: 2 x 0.5^6 = 0.031 <= 0.05 < 2 x 0.5^5.
        assert_eq!(rounds_needed(1, Match::Two), 6);
        // Nine models against the reference: 2 x 3^-6 x 9 = 0.025; all pairs of ten beside it.
        assert_eq!(rounds_needed(9, Match::WithReference), 6);
        assert_eq!(rounds_needed(45, Match::BesideReference), 6);
        assert!(!separable(5, 9, Match::WithReference));
        // Two runs of four rounds: 2 of C(8, 4) = 70 orders, 0.029.
        assert!(separable_unpaired(4, 4, 1) && !separable_unpaired(4, 4, 2));
        let rounds = |n: usize| vec![(0.5, 0.001); n];
        let family = |n| vec![Contrast::paired(&rounds(n), Match::WithReference, 0.03); 9];
        assert!(verdicts(&family(5)).iter().all(|v| *v == Verdict::Alike));
        assert!(verdicts(&family(6)).iter().all(|v| *v == Verdict::More));
    }

    #[test]
    fn both_the_interval_and_the_rounds_must_agree() {
        let verdict = |rounds: &[(f64, f64)], threshold| {
            verdicts(&[Contrast::paired(rounds, Match::WithReference, threshold)])[0]
        };
        assert_eq!(verdict(&[(-0.2, 0.01); 8], 0.03), Verdict::Less);
        // Outside the floor, and no more than the reference's second run.
        assert_eq!(verdict(&[(0.2, 0.3); 8], 0.03), Verdict::Alike);
        // More in every round, and inside the floor.
        assert_eq!(verdict(&[(0.2, 0.01); 8], 0.25), Verdict::Alike);
        assert_eq!(verdict(&[], 0.03), Verdict::Alike);
    }

    #[test]
    fn two_runs_differ_when_their_rounds_do() {
        let a = [100.0, 104.0, 98.0, 101.0, 99.0, 103.0];
        let verdict = |factor: f64, threshold| {
            let b = a.map(|value| value * factor);
            let ratio = unpaired_ratio(&a, &b, 1).unwrap();
            verdicts(&[Contrast::unpaired(&a, &b, &ratio, threshold)])[0]
        };
        assert_eq!(verdict(1.2, 0.03), Verdict::More);
        assert_eq!(verdict(0.8, 0.03), Verdict::Less);
        assert_eq!(verdict(1.2, 0.25), Verdict::Alike);
        assert_eq!(verdict(1.02, 0.03), Verdict::Alike);
    }

    #[test]
    fn ranks_overlap_where_nothing_is_clear() {
        // 0 beats 2 and 3; 1 beats 3; 0 and 1, 1 and 2, 2 and 3 are ties.
        let mut better = vec![vec![false; 4]; 4];
        (better[0][2], better[0][3], better[1][3]) = (true, true, true);
        assert_eq!(tied_ranks(&better), [(1, 2), (1, 3), (2, 4), (3, 4)]);
        assert_eq!(tied_ranks(&[]), []);
    }
}
