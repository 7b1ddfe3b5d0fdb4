//! Evaluation of servers that were measured in slices ([`rig::slices`]).

pub mod standing;

use rig::slices::Epoch;

use load::Slice;

use verdict::statistics::{BlockRatio, log_ratio, median};

/// A figure of a slice: the cost of a request, or the requests per second.
type Figure = fn(&Slice) -> Option<f64>;

pub fn typical(epochs: &[Epoch], entrant: usize, figure: Figure) -> Option<f64> {
    let blocks = epochs.iter().flat_map(|epoch| &epoch.blocks);
    let slices = blocks.filter_map(|block| block[entrant].as_ref());
    median(&slices.filter_map(figure).collect::<Vec<_>>())
}

/// The ratio of a figure of one entrant to that of another. `None`: there are too few epochs.
pub fn ratio(
    epochs: &[Epoch],
    entrant: usize,
    reference: usize,
    figure: Figure,
) -> Option<BlockRatio> {
    let log = |block: &Vec<Option<Slice>>| {
        let of = |at: usize| block[at].as_ref().and_then(figure);
        log_ratio(of(entrant)?, of(reference)?)
    };
    let logs: Vec<Vec<f64>> =
        epochs.iter().map(|epoch| epoch.blocks.iter().filter_map(log).collect()).collect();
    BlockRatio::of(&logs)
}
