//! The lab, the demo and the benchmarks of Adit.

pub mod cli;
pub mod demo;
pub mod lab;
mod output;
pub mod programs;
pub mod traffic;
