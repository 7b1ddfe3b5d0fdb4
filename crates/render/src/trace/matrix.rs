//! The two tables in which every model is placed by its trace, and the words beside them.

use record::Recording;
use verdict::trace::{Blocks, CopiedBy, Place, place};

use crate::text::{columns, lines_of};

/// Width of the first column.
const ANSWER: usize = 24;

/// The two tables, with every run of the recording.
pub fn matrix(recording: &Recording) -> String {
    let placed: Vec<(&str, Place)> =
        recording.runs.iter().map(|run| (&*run.run, place(recording, &run.run))).collect();
    let line = |answer: &str, named: &dyn Fn(&Place) -> Option<String>| {
        let names = placed.iter().filter_map(|(name, place)| {
            named(place).map(|calls| match calls.as_str() {
                "" => (*name).to_owned(),
                calls => format!("{name} ({calls})"),
            })
        });
        let names: Vec<_> = names.collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let lines = lines_of(&names, columns() - ANSWER - 3);
        let begins = std::iter::once(answer).chain(std::iter::repeat(""));
        let lines = begins.zip(lines).map(|(begin, line)| format!("  {begin:ANSWER$} {line}\n"));
        lines.collect::<String>()
    };
    let sleeps = |blocks: Blocks| {
        move |place: &Place| (place.blocks == blocks).then(|| place.blocks_in.join(", "))
    };
    let copies = |by: Option<CopiedBy>| {
        move |place: &Place| (place.copied_by == by).then(|| place.copied_in.join(", "))
    };
    let mut text = "Blocks in: where does a thread sleep that serves clients?\n".to_owned();
    text += &line("accept, recv or send", &sleeps(Blocks::InIo));
    text += &line("a call that only waits", &sleeps(Blocks::InWait));
    text += &line("nothing", &sleeps(Blocks::Never));
    text += "Copied by: who copies what a client sent to the memory of the process?\n";
    text += &line(CopiedBy::Thread.words(), &copies(Some(CopiedBy::Thread)));
    text += &line(CopiedBy::Kernel.words(), &copies(Some(CopiedBy::Kernel)));
    if placed.iter().any(|(_, place)| place.copied_by.is_none()) {
        text += &line("not seen", &copies(None));
    }
    text
}

/// Definitions, and the questions that everybody asks.
pub fn explanation() -> String {
    let mut text = String::new();
    for paragraph in EXPLANATION.split("\n\n") {
        let indent = if paragraph.starts_with("  ") { "  " } else { "" };
        for line in lines_of(paragraph.trim(), columns() - indent.len()) {
            text += &format!("{indent}{line}\n");
        }
        text.push('\n');
    }
    text
}

const EXPLANATION: &str = "\
A read from a socket has two phases (Stevens, UNP section 6.2): waiting until data is there, and \
copying it from the kernel to the memory of the process. Two questions follow, one for each phase. \
They have independent answers.

  Blocks in: in which call does the thread sleep while no data is there? In accept, recv or send; \
in a call that only waits, such as epoll_wait; or in nothing.

  Copied by: who copies the data to the memory of the process? The thread, in its own call of \
recv, or the kernel, while the thread does something else.

THREE DEFINITIONS

  POSIX (Base Definitions, chapter 3): a synchronous I/O operation blocks the thread that requests \
it until the operation completes; an asynchronous one does not of itself block the thread.

  Stevens (UNP section 6.2): blocking, non-blocking, multiplexed and signal-driven I/O are all \
synchronous, because in each of them the process is in recvfrom during the second phase. They \
differ in the first phase. In asynchronous I/O the kernel does both phases and reports the end.

  The notes of this project: synchronous means that the other side does not notify, asynchronous \
that it does; blocking means that one does nothing else meanwhile. By these words epoll would be \
asynchronous, because it notifies. POSIX and Stevens say that it is synchronous.

QUESTIONS

  Is epoll asynchronous? No. epoll_wait reports that a socket is ready. The thread then calls \
recv, and copies the data in that call. `iolab trace epoll` shows the call and its bytes. With \
io_uring no thread calls recv: `iolab trace uring`.

  Why does epoll_wait block if epoll is non-blocking I/O? The two words are about different calls. \
The sockets are non-blocking: recv returns at once, with EAGAIN if nothing is there. epoll_wait is \
the one call in which the thread may sleep, and it sleeps for all sockets together.

  Is non-blocking the same as asynchronous? No. Non-blocking is about the first phase: the call \
returns at once if no data is there. Asynchronous is about the second: the thread makes no call \
that copies. `iolab trace busy` never blocks, and its thread copies every byte.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_explanation_fits_a_terminal() {
        let text = explanation();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        for question in ["Is epoll asynchronous?", "Why does epoll_wait block", "same as async"] {
            assert!(text.contains(question), "{question}");
        }
    }
}
