//! The lab, the demo and the benchmarks of Adit.

mod anyconnect;
pub mod cli;
mod compare;
pub mod demo;
#[cfg(test)]
mod documented;
pub mod instructions;
mod interrupt;
pub mod load;
pub mod logins;
pub mod measure;
pub mod micro;
mod networks;
mod policy;
mod reference;
mod report;
mod runtime;
pub mod systems;
mod verdict;
