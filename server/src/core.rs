//! What the gateway is, whatever its clients speak: sessions, who may have one, and where packets go. It knows no front-end.

pub(crate) mod admission;
pub mod gateway;
pub mod leases;
pub mod router;
pub mod sessions;

#[cfg(test)]
mod tests;
