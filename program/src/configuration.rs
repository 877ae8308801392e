//! The configuration of a program, as one table with a row for each key.
//!
//! A [`Key`] says how a key is called, which values it takes, what holds where nobody gives it, what it means, when a
//! change of it takes effect, and how its value is read. Everything else follows from the rows: [`Keys::read`] reads a
//! TOML file, the environment and flags and finds every problem at once, [`Keys::sample`] writes a commented file, and
//! [`Keys::reference`] the table of the documentation.
//!
//! What the keys mean is the program's business: it reads into a type of its own.

mod given;
mod key;
mod overrides;
mod problem;
mod reading;
mod text;

#[cfg(test)]
mod tests;

pub use given::{Complaint, Given, put};
pub use key::{Absent, Applies, Key, Keys, Kind};
pub use overrides::Overrides;
pub use problem::{Fault, Finding, Origin, Problem};
pub use reading::Values;
pub use text::with_part;
