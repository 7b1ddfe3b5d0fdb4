//! What touches processes and the machine: servers are found and started, each in a cgroup of its
//! own, asked, loaded, sampled, counted and stopped. What was seen becomes the types of [`record`].
//!
//! Reading order: `discover`, `server`, `trial`, then what a trial is made of: `exchange` (the
//! second reader), `engine` (the load), `sample`, `counting`; and the machine: `environment`,
//! `calibrate`.

pub mod calibrate;
pub mod cgroup;
pub mod counting;
pub mod diag;
pub mod discover;
pub mod engine;
pub mod environment;
pub mod exchange;
pub mod executable;
pub mod sample;
pub mod server;
pub mod sys;
pub mod trial;
pub mod unavailable;
