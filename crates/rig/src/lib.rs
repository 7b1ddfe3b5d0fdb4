//! What touches processes and the machine: servers are found and started, each in a cgroup of its
//! own, asked, loaded, sampled, counted and stopped. What was seen becomes the types of [`record`].
//!
//! Reading order: `discover`, `server`, `epoch` and `trial`, then what they are made of: `exchange`
//! (the second reader), `hold` (silent connections), `engine` (the load), `slices`, `sample`,
//! `counting`; and the machine: `environment`, `others`, `calibrate`.

pub mod calibrate;
pub mod cgroup;
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
pub mod sample;
pub mod server;
pub mod slices;
pub mod sys;
pub mod trial;
pub mod unavailable;
