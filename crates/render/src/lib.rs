//! A result, written down: tables for a terminal, REPORT.md and its plots, the comparison of two
//! runs, other formats. A function of the file and of the terminal's width; opens no socket.

pub mod compare;
pub mod export;
pub mod failure;
pub mod grid;
pub mod report;
pub mod text;

use verdict::{doubt, statistics, summary};
