//! When the kernel was done with an operation of io_uring, by its tracepoint `io_uring_complete`.
//! This needs root or CAP_PERFMON; without it the queues of the ring are all that is known. man:
//! perf_event_open(2), Documentation/trace/events.rst.

use nix::unistd::Pid;

use crate::counting::Tracepoints;
use crate::sys::Samples;

/// An operation that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Done {
    at_ns: u64,
    user_data: u64,
    result: i32,
}

/// The tracepoint, in the threads that have a ring.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    samples: Vec<(Samples, Fields)>,
    done: Vec<Done>,
}

/// Offsets in the raw data of a sample.
#[derive(Debug, Clone, Copy)]
struct Fields {
    user_data: usize,
    result: usize,
}

/// PERF_RECORD_SAMPLE (linux/perf_event.h).
const SAMPLE: u32 = 9;
/// Before the raw data: header of the record, time, length of the data.
const HEADER_BYTES: usize = 8;
const RAW_AT: usize = HEADER_BYTES + 8 + 4;

impl Kernel {
    /// This thread has set up a ring.
    pub(super) fn watch(&mut self, thread: Pid) {
        let open = || {
            let tracepoints = Tracepoints::find().ok()?;
            let (category, name) = ("io_uring", "io_uring_complete");
            let fields = tracepoints.fields(category, name).ok()?;
            let at = |wanted: &str, bytes: usize| {
                let mut fields = fields.iter();
                let field = fields.find(|(name, _, size)| name == wanted && *size == bytes)?;
                Some(field.1)
            };
            let fields = Fields { user_data: at("user_data", 8)?, result: at("res", 4)? };
            Some((Samples::of(thread, tracepoints.id(category, name).ok()?).ok()?, fields))
        };
        self.samples.extend(open());
    }

    /// When the kernel was done with the operation that has this result; `None` if it was not seen.
    pub(super) fn when(&mut self, user_data: u64, result: i32) -> Option<u64> {
        for (samples, fields) in &mut self.samples {
            self.done.extend(parse(&samples.take(), *fields));
        }
        let is = |done: &Done| done.user_data == user_data && done.result == result;
        let place = self.done.iter().position(is)?;
        Some(self.done.remove(place).at_ns)
    }
}

/// The samples in these records. Each record begins with its type and its length.
fn parse(mut records: &[u8], fields: Fields) -> Vec<Done> {
    let mut found = Vec::new();
    while let Some(header) = records.first_chunk::<HEADER_BYTES>() {
        let kind = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::from(u16::from_ne_bytes([header[6], header[7]]));
        let Some((record, rest)) = records.split_at_checked(length) else { break };
        if length < HEADER_BYTES {
            break;
        }
        if kind == SAMPLE {
            found.extend(sample(record, fields));
        }
        records = rest;
    }
    found
}

fn sample(record: &[u8], fields: Fields) -> Option<Done> {
    let long = |at: usize| record.get(at..)?.first_chunk().map(|b| u64::from_ne_bytes(*b));
    let word = |at: usize| record.get(at..)?.first_chunk().map(|b| i32::from_ne_bytes(*b));
    Some(Done {
        at_ns: long(HEADER_BYTES)?,
        user_data: long(RAW_AT + fields.user_data)?,
        result: word(RAW_AT + fields.result)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_among_other_records() {
        let mut records = Vec::new();
        // PERF_RECORD_LOST, 24 bytes.
        records.extend(2_u32.to_ne_bytes());
        records.extend([0, 0, 24, 0]);
        records.extend([7; 16]);
        let mut raw = [0_u8; 44];
        raw[24..32].copy_from_slice(&77_u64.to_ne_bytes());
        raw[32..36].copy_from_slice(&(-11_i32).to_ne_bytes());
        records.extend(SAMPLE.to_ne_bytes());
        records.extend([0, 0, 64, 0]);
        records.extend(5_000_u64.to_ne_bytes());
        records.extend(44_u32.to_ne_bytes());
        records.extend(raw);
        let fields = Fields { user_data: 24, result: 32 };
        let done = Done { at_ns: 5_000, user_data: 77, result: -11 };
        assert_eq!(parse(&records, fields), [done]);
        // Half a record is none.
        assert_eq!(parse(&records[..60], fields), []);
    }
}
