//! Whose clients wait for a disk, by the recording of `cold-file`.

use record::{Recording, Run};

use super::{Answer, Lesson, Sentence, time, who_waits};

/// A client waited for the disk if one of its waits was this share of the time of the file, and it
/// had fewer replies meanwhile than the server made reads: it was served between them at most.
const SHARE_MIN: f64 = 0.05;
/// One thread serves all clients, and reads the file.
const LOOPS: &[&str] = &["select", "poll", "epoll"];
/// A thread for each client.
const THREAD_EACH: &[&str] = &["threads", "pool"];
/// EPERM and EAGAIN (errno(3)).
const EPERM: f64 = 1.0;
const EAGAIN: f64 = 11.0;

struct Model<'a> {
    name: &'a str,
    /// Time of the file, and the longest wait of the other client beside it, in microseconds.
    file_us: f64,
    longest_us: f64,
    warm_us: f64,
    replies: usize,
    stalls: bool,
}

fn model<'a>(recording: &'a Recording, run: &'a Run) -> Option<Model<'a>> {
    let file = recording.spans_of(&run.run).find(|span| span.kind == "read")?;
    let waits = || recording.spans_of(&run.run).filter(|span| span.kind == "waits");
    let longest_us = waits().map(|span| span.to_us - span.from_us).fold(0.0, f64::max);
    let replies = waits().filter(|span| span.to_us <= file.to_us).count();
    let file_us = file.to_us - file.from_us;
    let reads = recording.figure(&run.run, "reads")?;
    Some(Model {
        name: &run.run,
        file_us,
        longest_us,
        warm_us: recording.figure(&run.run, "longest_wait_warm_us")?,
        replies,
        stalls: longest_us >= SHARE_MIN * file_us && (replies as f64) < reads,
    })
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let models: Vec<Model> =
        recording.runs.iter().filter_map(|run| model(recording, run)).collect();
    let (stalled, free): (Vec<&Model>, Vec<&Model>) = models.iter().partition(|one| one.stalls);
    let text = match (stalled.is_empty(), free.is_empty()) {
        (true, true) => "no model was run".to_owned(),
        (true, false) => "While the disk is read for one client, no other client waits".to_owned(),
        (false, _) => {
            let longest_us = stalled.iter().map(|one| one.longest_us).fold(0.0, f64::max);
            format!(
                "While the disk is read for one client, the other clients of {} wait, up to {}",
                names(&stalled),
                time(longest_us)
            )
        }
    };
    let sentences = [own_calls(recording), loops(&models), threads(&models)];
    let ring = models.iter().filter(|one| one.name == "uring").map(ring);
    let runtime = models.iter().filter(|one| one.name == "tokio").map(runtime);
    let sentences = sentences.into_iter().flatten().chain(ring).chain(runtime).collect();
    let holds = !stalled.is_empty() && !free.is_empty();
    Lesson { finding: Sentence { text, holds }, sentences, answer: answer(&models) }
}

fn names(models: &[&Model]) -> String {
    super::names(models.iter().map(|model| model.name))
}

fn of<'a>(models: &'a [Model<'a>], known: &[&str]) -> Vec<&'a Model<'a>> {
    models.iter().filter(|model| known.contains(&model.name)).collect()
}

/// The longest wait among these, and the fewest and the most replies.
fn told(models: &[&Model]) -> String {
    let longest_us = models.iter().map(|one| one.longest_us).fold(0.0, f64::max);
    let replies = || models.iter().map(|one| one.replies);
    let (least, most) = (replies().min().unwrap_or(0), replies().max().unwrap_or(0));
    let replies = if least == most { least.to_string() } else { format!("{least} to {most}") };
    format!(
        "the other client had {replies} replies meanwhile and waited up to {}",
        time(longest_us)
    )
}

/// What the calls of a process say of a file.
fn own_calls(recording: &Recording) -> Option<Sentence> {
    let of = |name: &str| recording.figure("read", name);
    let (refused, errno) = (of("epoll_ctl_errno")?, of("read_errno")?);
    let (bytes, took) = (of("read_bytes")?, time(of("read_us")?));
    let epoll = match refused == EPERM {
        true => "epoll_ctl(2) does not take a file (EPERM)".to_owned(),
        false => format!("epoll_ctl(2) of a file said errno {refused}"),
    };
    Some(Sentence::new(
        refused == EPERM && errno == 0.0 && bytes > 0.0,
        format!(
            "{epoll}, and read(2) of a file opened with O_NONBLOCK did not say EAGAIN: it waited \
             {took} for the disk and returned {bytes:.0} bytes."
        ),
        match errno == EAGAIN {
            true => format!("{epoll}, and read(2) of a file opened with O_NONBLOCK said EAGAIN."),
            false => format!("{epoll}, and read(2) failed with errno {errno}."),
        },
    ))
}

fn loops(models: &[Model]) -> Option<Sentence> {
    let all = of(models, LOOPS);
    let free: Vec<&Model> = all.iter().copied().filter(|model| !model.stalls).collect();
    let file_us = all.iter().map(|one| one.file_us).fold(0.0, f64::max);
    let warm_us = all.iter().map(|one| one.warm_us).fold(0.0, f64::max);
    (!all.is_empty()).then(|| {
        Sentence::new(
            free.is_empty(),
            format!(
                "{}: the thread that serves all clients reads the file, and sleeps until the disk \
                 answers. The file took {}; {} (beside a file in memory: {}).",
                names(&all),
                time(file_us),
                told(&all),
                time(warm_us)
            ),
            format!("{}: the read of the file stopped no client: {}.", names(&free), told(&free)),
        )
    })
}

fn threads(models: &[Model]) -> Option<Sentence> {
    let all = of(models, THREAD_EACH);
    let stalled: Vec<&Model> = all.iter().copied().filter(|model| model.stalls).collect();
    (!all.is_empty()).then(|| {
        Sentence::new(
            stalled.is_empty(),
            format!(
                "{}: the disk is waited for by the thread of the client that wants the file: {}.",
                names(&all),
                told(&all)
            ),
            format!(
                "{}: a thread for each client, and yet they wait: {}.",
                names(&stalled),
                told(&stalled)
            ),
        )
    })
}

fn ring(model: &Model) -> Sentence {
    let told = told(&[model]);
    Sentence::new(
        !model.stalls,
        format!(
            "uring: the kernel reads the file, and the thread takes other completions until that \
             one comes: {told}."
        ),
        format!("uring: the ring waited for the disk too: {told}."),
    )
}

fn runtime(model: &Model) -> Sentence {
    let told = told(&[model]);
    Sentence::new(
        !model.stalls,
        format!("tokio: the runtime reads files on threads that serve no client: {told}."),
        format!("tokio: the read is made on the thread of the tasks: {told}."),
    )
}

fn answer(models: &[Model]) -> Option<Answer> {
    let stalls = |known| of(models, known).iter().map(|model| model.stalls).collect();
    let of_loops = "those of the loops in select, poll and epoll";
    who_waits([stalls(LOOPS), stalls(THREAD_EACH)], of_loops, models.is_empty())
}

#[cfg(test)]
mod tests {
    use record::{Figure, Span};

    use super::*;

    /// Model, the longest wait in milliseconds, and the replies beside a file of 1 s.
    fn recording(runs: &[(&str, f64, u32)], read_errno: f64) -> Recording {
        let mut recording = super::super::tests::recording("cold-file");
        let figure = |run: &str, name: &str, value| {
            let (run, name) = (run.to_owned(), name.to_owned());
            Figure { run, name, value, ..Figure::default() }
        };
        recording.runs.push(Run { run: "read".into(), ..Run::default() });
        for (name, value) in [
            ("epoll_ctl_errno", EPERM),
            ("read_errno", read_errno),
            ("read_bytes", 65_536.0),
            ("read_us", 125e3),
        ] {
            recording.figures.push(figure("read", name, value));
        }
        for &(run, longest_ms, replies) in runs {
            recording.runs.push(Run { run: run.into(), ..Run::default() });
            recording.figures.push(figure(run, "reads", 16.0));
            recording.figures.push(figure(run, "longest_wait_warm_us", 300.0));
            let span = |kind: &str, to_us| {
                let (run, kind) = (run.to_owned(), kind.to_owned());
                Span { run, kind, to_us, ..Span::default() }
            };
            recording.spans.push(span("read", 1e6));
            recording.spans.push(span("waits", longest_ms * 1e3));
            recording.spans.extend((1..replies).map(|_| span("waits", 200.0)));
        }
        recording
    }

    fn holds(recording: &Recording) -> (bool, Vec<bool>) {
        let lesson = lesson(recording);
        (lesson.finding.holds, lesson.sentences.iter().map(|one| one.holds).collect())
    }

    #[test]
    fn a_loop_waits_for_the_disk_and_a_thread_each_does_not() {
        let all =
            [("epoll", 130.0, 9), ("threads", 1.0, 250), ("uring", 1.0, 250), ("tokio", 1.0, 250)];
        let seen = recording(&all, 0.0);
        assert_eq!(holds(&seen), (true, vec![true; 5]));
        assert!(lesson(&seen).finding.text.contains("of epoll wait, up to 130 ms"));
    }

    #[test]
    fn without_its_cause_each_sentence_says_something_else() {
        // A thread for each in the place of the loop, loops in the place of the others, and a file
        // whose read says EAGAIN.
        let all =
            [("epoll", 1.0, 250), ("threads", 130.0, 9), ("uring", 130.0, 9), ("tokio", 130.0, 9)];
        let seen = recording(&all, EAGAIN);
        assert_eq!(holds(&seen), (true, vec![false; 5]));
        let each = "those of models with a thread for each client".to_owned();
        assert_eq!(lesson(&seen).answer, Some(Answer::Choice(each)));
        // A file in memory: no client waits.
        assert!(!holds(&recording(&[("epoll", 0.3, 2), ("threads", 0.3, 2)], 0.0)).0);
    }
}
