//! `--awake`: whether the processors are held awake while something is measured.

use clap::ValueEnum;

use crate::slices::Awake;

/// Whether the processors are held awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Where that is allowed.
    Auto,
    /// Or nothing is measured.
    On,
    /// They may sleep, as on a machine that is left alone.
    Off,
}

impl When {
    /// Holds the processors awake, if that was asked for and is allowed.
    ///
    /// # Errors
    /// One sentence where it was asked for and is not allowed.
    pub fn hold(self) -> Result<Option<Awake>, String> {
        match self {
            When::Off => Ok(None),
            When::On => Awake::hold()
                .map(Some)
                .map_err(|why| format!("--awake on: {why}; run as root, or leave it out")),
            When::Auto => Ok(Awake::hold().ok()),
        }
    }
}
