//! `--awake`: whether processors may enter idle states during a measurement.

use clap::ValueEnum;

use rig::slices::Awake;

/// Whether the processors are kept out of idle states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Keep them awake if this user may.
    Auto,
    /// Keep them awake; fail if this user may not.
    On,
    /// Let them sleep.
    Off,
}

impl When {
    /// Keeps the processors awake until the returned value is dropped.
    ///
    /// # Errors
    /// One sentence if `On` is not permitted.
    pub fn hold(self) -> Result<Option<Awake>, String> {
        match self {
            When::Off => Ok(None),
            When::On => Awake::hold()
                .map(Some)
                .map_err(|why| format!("--awake on: {why}; run as root, or omit --awake")),
            When::Auto => Ok(Awake::hold().ok()),
        }
    }
}
