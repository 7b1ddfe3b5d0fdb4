//! Everything that handles processes and the machine: servers are found, started in their own
//! cgroups, tested, loaded, sampled, counted and stopped. The results have the types of [`record`].
//!
//! Reading order: `discover`, `server`, `epoch` and `trial`, then their parts: `exchange` (the
//! second client), `hold` (idle connections), `engine` (the load), `slices`, `sample`, `counting`.
//! `trace` stands beside them and times nothing. Of the machine: `environment`, `others`,
//! `calibrate`, `cold` (a file that is not in memory), `queues` (bytes that wait in the kernel).

pub mod calibrate;
pub mod cgroup;
pub mod client;
pub mod cold;
pub mod counting;
pub mod diag;
pub mod discover;
pub mod engine;
pub mod environment;
pub mod epoch;
pub mod exchange;
pub mod executable;
pub mod hold;
pub mod others;
pub mod queues;
pub mod sample;
pub mod server;
pub mod slices;
pub mod sys;
pub mod trace;
pub mod trial;
pub mod unavailable;
