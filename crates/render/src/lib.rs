//! Renders results: tables for a terminal, REPORT.md and its plots, comparisons of runs, other
//! formats. A function of the file and of the terminal's width, without sockets.

pub mod compare;
pub mod export;
pub mod failure;
pub mod grid;
pub mod lesson;
pub mod packed;
pub mod report;
pub mod text;
pub mod trace;
