//! A table whose slots are used again, under tokens that are not: a completion or a deadline of a
//! connection that has ended finds no connection.

use slab::Slab;

use crate::ring::{GENERATIONS, Token};

#[derive(Debug)]
pub(crate) struct Table<T> {
    pub(crate) slab: Slab<(u32, T)>,
    /// That of the next connection. It is used again after [`GENERATIONS`] connections of the
    /// whole table, and nothing of a connection is in flight when its slot is used again.
    generation: u32,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { slab: Slab::new(), generation: 0 }
    }
}

impl<T> Table<T> {
    /// The token of the next connection.
    pub(crate) fn next_token(&self) -> Token {
        // There are never more slots than descriptors, which are positive i32s.
        Token { slot: self.slab.vacant_key() as u32, generation: self.generation }
    }

    pub(crate) fn insert(&mut self, connection: T) -> Token {
        let token = self.next_token();
        self.generation = (token.generation + 1) % GENERATIONS;
        self.slab.insert((token.generation, connection));
        token
    }

    pub(crate) fn get(&mut self, token: Token) -> Option<&mut T> {
        let (generation, connection) = self.slab.get_mut(token.slot as usize)?;
        (*generation == token.generation).then_some(connection)
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<T> {
        self.get(token)?;
        self.slab.try_remove(token.slot as usize).map(|(_, connection)| connection)
    }

    pub(crate) fn tokens(&self) -> Vec<Token> {
        let token = |(slot, (generation, _)): (usize, &(u32, T))| Token {
            slot: slot as u32,
            generation: *generation,
        };
        self.slab.iter().map(token).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_of_a_connection_that_has_ended_finds_none() {
        let mut table = Table::default();
        let first = table.insert("first");
        let other = table.insert("other");
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second");
        assert_eq!(second.slot, first.slot, "the slot is used again");
        assert_ne!(second, first);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&mut "second"));
        assert_eq!(table.get(other), Some(&mut "other"));
        assert_eq!(table.len(), 2);
        assert_eq!(table.tokens(), [second, other]);
    }

    #[test]
    fn generations_fit_their_24_bits() {
        let mut table = Table { slab: Slab::new(), generation: GENERATIONS - 1 };
        let last = table.insert(());
        table.remove(last);
        let first = table.insert(());
        assert_eq!((last.generation, first.generation), (GENERATIONS - 1, 0));
    }
}
