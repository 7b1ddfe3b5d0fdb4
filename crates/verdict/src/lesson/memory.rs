//! Where a connection's state lives, by the recording of the experiment `memory`.

use record::{Recording, Run};

use super::{Answer, Lesson, Sentence};

/// The stack of a thread in the kernel has 16 KiB on x86-64, so a connection with a thread takes at
/// least this much more of the kernel's memory than one without.
const KERNEL_STACK_MIN_KIB: f64 = 8.0;
/// A loop's entry for a silent connection owns no buffer. A page would be a sign of one.
const ENTRY_MAX_KIB: f64 = 4.0;

struct Seen<'a> {
    model: &'a str,
    own_kib: f64,
    kernel_kib: Option<f64>,
    threads: f64,
}

impl Seen<'_> {
    fn sum_kib(&self) -> f64 {
        self.own_kib + self.kernel_kib.unwrap_or(0.0)
    }

    fn told(&self) -> String {
        match self.kernel_kib {
            Some(kernel) => {
                format!("{:.1} KiB of its own and {kernel:.1} KiB of the kernel's", self.own_kib)
            }
            None => format!("{:.1} KiB of its own", self.own_kib),
        }
    }
}

fn seen<'a>(recording: &Recording, run: &'a Run) -> Option<Seen<'a>> {
    let of = |name: &str| recording.figure(&run.run, name);
    Some(Seen {
        model: &run.model,
        own_kib: of("own_per_connection_kib")?,
        kernel_kib: of("kernel_per_connection_kib"),
        threads: of("threads_per_connection")?,
    })
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let all: Vec<Seen> = recording.runs.iter().filter_map(|run| seen(recording, run)).collect();
    let named = |model: &str| all.iter().find(|one| one.model == model);
    let (Some(threads), Some(epoll)) = (named("threads"), named("epoll")) else {
        let finding = Sentence { text: "threads and epoll were not both run".into(), holds: false };
        return Lesson { finding, sentences: Vec::new(), answer: None };
    };
    let mut sentences = vec![stack(threads, epoll), entry(epoll)];
    sentences.extend(named("pool").map(before));
    sentences.extend(named("tokio").map(|tokio| future(tokio, epoll)));
    sentences.extend(socket(&all));
    let times = threads.sum_kib() / epoll.sum_kib();
    let sums = (threads.sum_kib(), epoll.sum_kib());
    let finding = Sentence::new(
        times > 1.0,
        format!(
            "A silent connection takes {:.1} KiB with a thread for each and {:.1} KiB with epoll",
            sums.0, sums.1
        ),
        format!(
            "A silent connection takes {:.1} KiB in threads, no more than the {:.1} KiB in epoll",
            sums.0, sums.1
        ),
    );
    let answer = (epoll.sum_kib() > 0.0).then_some(Answer::Number(times));
    Lesson { finding, sentences, answer }
}

fn has_thread(seen: &Seen) -> bool {
    seen.threads > 0.9
}

fn stack(threads: &Seen, epoll: &Seen) -> Sentence {
    let stack = threads.kernel_kib.zip(epoll.kernel_kib);
    let more = stack.is_none_or(|(with, without)| with - without >= KERNEL_STACK_MIN_KIB);
    let told = threads.told();
    Sentence::new(
        has_thread(threads) && more,
        format!("threads takes {told}: each connection has a thread, with a stack on both sides."),
        format!(
            "threads takes {told}, and {:.2} threads for each connection: there is no stack for \
             each.",
            threads.threads
        ),
    )
}

fn entry(epoll: &Seen) -> Sentence {
    let told = epoll.told();
    Sentence::new(
        !has_thread(epoll) && epoll.own_kib < ENTRY_MAX_KIB,
        format!("epoll takes {told}: an entry in a table, without a buffer."),
        format!("epoll takes {told}: more than an entry in a table."),
    )
}

fn before(pool: &Seen) -> Sentence {
    let told = pool.told();
    Sentence::new(
        pool.threads < 0.1,
        format!("pool takes {told}: its threads were there before the connections."),
        format!("pool takes {told}, and {:.2} threads for each connection.", pool.threads),
    )
}

fn future(tokio: &Seen, epoll: &Seen) -> Sentence {
    let told = tokio.told();
    Sentence::new(
        tokio.own_kib > epoll.own_kib && !has_thread(tokio),
        format!(
            "tokio takes {told}: the future of a task holds what the task may need at any await."
        ),
        format!("tokio takes {told}, no more of its own than epoll."),
    )
}

fn socket(all: &[Seen]) -> Option<Sentence> {
    let least = all.iter().filter_map(|one| one.kernel_kib).reduce(f64::min)?;
    Some(Sentence::new(
        least >= 1.0,
        format!("In every model the kernel keeps at least {least:.1} KiB for the socket."),
        format!("The kernel charged only {least:.1} KiB: before Linux 6.12 a socket is not seen."),
    ))
}

#[cfg(test)]
mod tests {
    use record::{Environment, Figure, Heading, RECORDING_VERSION};

    use super::*;

    /// Model, own and kernel memory, and threads for each connection.
    type Row<'a> = (&'a str, f64, f64, f64);

    const USUAL: [Row; 4] = [
        ("threads", 26.0, 25.0, 1.0),
        ("pool", 7.0, 4.0, 0.0),
        ("epoll", 0.6, 3.8, 0.0),
        ("tokio", 3.1, 3.8, 0.0),
    ];

    fn holds(rows: &[Row]) -> (bool, Vec<bool>) {
        let mut recording = Recording::new(Heading {
            recording_version: RECORDING_VERSION,
            experiment: "memory".into(),
            command: String::new(),
            prediction: None,
            environment: Environment::default(),
        });
        for (model, own, kernel, threads) in rows {
            let run = (*model).to_owned();
            recording.runs.push(Run { run: run.clone(), model: run.clone(), ..Run::default() });
            for (name, value) in [
                ("own_per_connection_kib", *own),
                ("kernel_per_connection_kib", *kernel),
                ("threads_per_connection", *threads),
            ] {
                let (run, name) = (run.clone(), name.to_owned());
                recording.figures.push(Figure { run, name, value, ..Figure::default() });
            }
        }
        let lesson = lesson(&recording);
        (lesson.finding.holds, lesson.sentences.iter().map(|one| one.holds).collect())
    }

    #[test]
    fn a_thread_has_stacks_and_an_entry_has_none() {
        assert_eq!(holds(&USUAL), (true, vec![true; 5]));
        assert_eq!(holds(&USUAL[..1]), (false, vec![]));
    }

    #[test]
    fn without_its_cause_each_sentence_says_something_else() {
        let [threads, pool, epoll, tokio] = USUAL;
        // epoll in the place of threads and of tokio, threads in the place of pool.
        let others = [
            ("threads", 0.6, 3.8, 0.0),
            ("pool", 26.0, 25.0, 1.0),
            epoll,
            ("tokio", 0.6, 3.8, 0.0),
        ];
        assert_eq!(holds(&others), (false, vec![false, true, false, false, true]));
        // A buffer for each connection, and a kernel that does not charge sockets.
        let buffers = [threads, pool, ("epoll", 17.0, 0.2, 0.0), tokio];
        assert_eq!(holds(&buffers), (true, vec![true, false, true, false, false]));
    }
}
