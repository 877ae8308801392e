//! Users of a directory.

pub mod settings;
