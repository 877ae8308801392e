//! Bad networks on purpose: delay, jitter, loss in bursts, reordering, duplication, damage, a bottleneck with a queue.
//!
//! A [`Profile`] says what happens to the frames of either direction; [`Impairment`] decides, for each frame and the
//! time of its arrival, whether and when it goes on; [`Passage`] holds the frames until then. All three are pure: time
//! is an argument and chance is seeded, so that the same seed and the same frames always meet the same fate. The relay
//! of the crate `adit-lab` (`Lab::pair_through`) is their shell.
//!
//! A frame goes through the bottleneck, then over the medium:
//!
//! ```text
//! queue (full: dropped) ─ sent at the rate ─ lost? damaged? doubled? ─ delay, jitter, held back? ─ delivered
//! ```
//!
//! - A lost frame has used its share of the rate, as on a radio link. Chance is drawn for every frame and every
//!   question from a stream of its own, also for frames that the queue drops: which frames are lost depends on the seed
//!   and their number alone, and another jitter does not change it.
//! - Order is kept but for the frames that `reorder_percent` picks: jitter delays a frame, and those behind it wait.
//! - Rate and queue are computed here and not by `tc tbf`: this is exact to the nanosecond, lets no burst pass at the
//!   cable's rate, needs neither a program nor a kernel module, is covered by the same tests under virtual time, and
//!   has the queue before the loss, where a queueing discipline of the relay's far link would have it behind.
//!
//! The keys of a profile's file are the fields of [`Link`], for both directions, or for one in the tables `[up]` and
//! `[down]`; and `description`.

mod bursts;
mod impairment;
mod jitter;
mod passage;
mod profile;
pub mod random;

pub use impairment::{Fate, FrameDrop, Impairment, LinkDirection};
pub use passage::{Counts, Delivery, Passage};
pub use profile::{JitterDistribution, Link, Profile, ProfileError, Remedy, shipped};
