//! Users that RADIUS servers know.

pub mod settings;
