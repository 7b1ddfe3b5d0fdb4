//! Nothing but its manifest: cargo unifies the features of a dependency over what it builds at
//! once, so a server built alone would be another executable than the one built with the whole
//! workspace, and replace it under a running measurement. Every executable depends on this crate,
//! which asks for all the features that any of them has.
