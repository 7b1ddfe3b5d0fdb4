//! The streams of a connection that are not over, and which of them has its turn next.

use std::collections::VecDeque;

use super::stream::Stream;

/// A stream is named by its identifier, which is never used again (RFC 9113 section 5.1.1). So a
/// list may name a stream that is over.
#[derive(Default)]
pub(super) struct Streams {
    /// In the order of their identifiers. Boxed, because the others move when one is removed.
    #[allow(clippy::vec_box, reason = "a stream is 300 bytes, and removals are frequent")]
    all: Vec<Box<Stream>>,
    /// Streams that can continue, each once, in the order of their priorities.
    ready: VecDeque<u32>,
    /// Streams that wait for the connection's window, in order.
    starved: VecDeque<u32>,
    /// Streams that need a part of a file, in order.
    files: VecDeque<u32>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.all.iter().map(|stream| &**stream)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.all.iter_mut().map(|stream| &mut **stream)
    }

    fn at(&self, id: u32) -> Result<usize, usize> {
        self.all.binary_search_by_key(&id, |stream| stream.id)
    }

    pub(super) fn get(&self, id: u32) -> Option<&Stream> {
        self.at(id).ok().map(|at| &*self.all[at])
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        self.at(id).ok().map(|at| &mut *self.all[at])
    }

    /// Adds a new stream, which can continue.
    pub(super) fn insert(&mut self, stream: Stream) {
        let id = stream.id;
        let at = self.at(id).unwrap_or_else(|at| at);
        self.all.insert(at, Box::new(stream));
        self.list(id);
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Box<Stream>> {
        self.at(id).ok().map(|at| self.all.remove(at))
    }

    /// The stream can continue: it gets its turn behind those of its priority.
    pub(super) fn list(&mut self, id: u32) {
        let Some(stream) = self.get_mut(id) else { return };
        if std::mem::replace(&mut stream.is_listed, true) {
            return;
        }
        let priority = stream.priority;
        let priority_of = |id: &u32| self.get(*id).map_or(priority, |stream| stream.priority);
        let before = self.ready.iter().rposition(|id| priority_of(id) <= priority);
        self.ready.insert(before.map_or(0, |at| at + 1), id);
    }

    /// All streams for which `condition` holds can continue.
    pub(super) fn list_if(&mut self, condition: impl Fn(&Stream) -> bool) {
        for at in 0..self.all.len() {
            if condition(&self.all[at]) {
                self.list(self.all[at].id);
            }
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The stream whose turn is next.
    pub(super) fn next(&mut self) -> Option<&mut Stream> {
        loop {
            let id = self.ready.pop_front()?;
            if let Ok(at) = self.at(id) {
                let stream = &mut self.all[at];
                stream.is_listed = false;
                return Some(stream);
            }
        }
    }

    /// The stream waits for the connection's window. A stream that is served once in a while would
    /// otherwise never get any of it.
    pub(super) fn starve(&mut self, id: u32) {
        if !self.starved.contains(&id) {
            self.starved.push_back(id);
        }
    }

    /// The connection's window has room.
    pub(super) fn feed(&mut self) {
        while let Some(id) = self.starved.pop_front() {
            self.list(id);
        }
    }

    pub(super) fn add_file(&mut self, id: u32) {
        if !self.files.contains(&id) {
            self.files.push_back(id);
        }
    }

    pub(super) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    pub(super) fn next_file(&mut self) -> Option<u32> {
        self.files.pop_front()
    }

    /// Bytes of memory, with what the streams hold.
    pub(super) fn held(&self) -> usize {
        let lists = self.ready.capacity() + self.starved.capacity() + self.files.capacity();
        let tables = lists * size_of::<u32>() + self.all.capacity() * size_of::<Box<Stream>>();
        tables + self.iter().map(Stream::held).sum::<usize>()
    }

    /// A connection without streams owns no tables.
    pub(super) fn shrink(&mut self) {
        if self.all.is_empty() && self.all.capacity() > 0 {
            *self = Streams::default();
        }
    }
}
