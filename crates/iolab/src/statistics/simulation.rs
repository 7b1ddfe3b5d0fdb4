//! What the verdicts are worth, by simulation with fixed seeds.
