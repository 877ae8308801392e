//! The lab, the demo and the benchmarks of Adit.

pub mod cli;
pub mod demo;
mod interrupt;
pub mod lab;
pub mod load;
pub mod measure;
mod output;
pub mod programs;
pub mod systems;
pub mod traffic;
