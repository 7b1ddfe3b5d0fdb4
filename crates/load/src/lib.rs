//! The load generator. Talks to a server through its socket only; never links the serving side,
//! for a client built from the server's codecs would agree with its bugs.
