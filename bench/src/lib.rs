//! The lab, the demo and the benchmarks of Adit.

pub mod cli;
mod compare;
pub mod demo;
pub mod impair;
pub mod instructions;
mod interrupt;
pub mod lab;
pub mod load;
pub mod measure;
pub mod micro;
mod output;
pub mod programs;
mod report;
pub mod systems;
pub mod traffic;
