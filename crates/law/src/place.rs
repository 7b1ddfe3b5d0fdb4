//! The law of two questions: where a model waits, and who copies the bytes, by its system calls.

use record::{Environment, Heading, RECORDING_VERSION, Recording, Run};
use verdict::trace::{Blocks, CopiedBy, Place, place};

use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[Law {
    id: "L30",
    claim: "Blocking or not and synchronous or not are two questions.",
    expected: "by its system calls each of eleven models has its place in both: serial, prefork, \
               threads and pool block in a call that moves bytes or connections, select, poll, \
               epoll, sigio, tokio and uring only in one that waits, busy in none; the thread \
               copies the bytes, for uring the kernel.",
    source: "Stevens, UNP 6.2 (figures 6.1 to 6.5); the notes",
    shown_by: "iolab trace all",
    takes_s: 12.0,
    bounds: &[
        Bound::exactly("models in their places", 11.0),
        Bound::exactly("models elsewhere", 0.0),
    ],
    measure: two_questions,
}];

/// Stevens' figures 6.1 (blocking), 6.2 (non-blocking), 6.3 (multiplexing), 6.4 (signal-driven) and
/// 6.5 (asynchronous).
const PLACES: [(&str, Blocks, CopiedBy); 11] = [
    ("serial", Blocks::InIo, CopiedBy::Thread),
    ("prefork", Blocks::InIo, CopiedBy::Thread),
    ("threads", Blocks::InIo, CopiedBy::Thread),
    ("pool", Blocks::InIo, CopiedBy::Thread),
    ("busy", Blocks::Never, CopiedBy::Thread),
    ("select", Blocks::InWait, CopiedBy::Thread),
    ("poll", Blocks::InWait, CopiedBy::Thread),
    ("epoll", Blocks::InWait, CopiedBy::Thread),
    ("sigio", Blocks::InWait, CopiedBy::Thread),
    ("tokio", Blocks::InWait, CopiedBy::Thread),
    ("uring", Blocks::InWait, CopiedBy::Kernel),
];

fn two_questions(lab: &Lab) -> Result<Measured, Reason> {
    let (mut right, mut wrong) = (0, Vec::new());
    for (label, blocks, copied_by) in PLACES {
        let seen = traced(lab, label)?;
        // Where the kernel's copies cannot be seen, nothing is known of them.
        if seen.copied_by.is_none() && copied_by == CopiedBy::Kernel {
            return Err(Reason::Skip(format!(
                "the operations of {label}'s ring cannot be seen here: run as root"
            )));
        }
        if (seen.blocks, seen.copied_by) == (blocks, Some(copied_by)) {
            right += 1;
        } else {
            let copied_by = seen.copied_by.map_or("nothing that was seen", CopiedBy::words);
            let blocks_in = seen.blocks_in();
            wrong.push(format!("{label} blocks in {blocks_in}, copied by {copied_by}"));
        }
    }
    let note = match wrong.is_empty() {
        true => "by ptrace(2), while three clients talk to each".to_owned(),
        false => format!("elsewhere: {}", wrong.join("; ")),
    };
    Ok(Measured::default()
        .figure("models in their places", f64::from(right), "")
        .figure("models elsewhere", wrong.len() as f64, "")
        .note(note))
}

fn traced(lab: &Lab, label: &str) -> Result<Place, Reason> {
    lab.go_on()?;
    let found = lab.found(label)?;
    let trace = rig::trace::run(&found.executable, &found.model.arguments, label);
    let trace = trace.map_err(|why| match why.contains("ptrace") {
        true => Reason::Skip(why),
        false => Reason::NotHere(format!("{label}: {why}")),
    })?;
    let mut recording = Recording::new(Heading {
        recording_version: RECORDING_VERSION,
        experiment: "trace".to_owned(),
        command: "iolab laws L30".to_owned(),
        prediction: None,
        environment: Environment::default(),
    });
    recording.runs.push(Run { run: label.to_owned(), ..Run::default() });
    recording.calls = trace.calls;
    Ok(place(&recording, label))
}
