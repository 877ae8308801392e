//! The Adit gateway: identity, accounts, the core with its sessions, front-ends and the admin socket.

pub mod accounts;
pub mod acme;
pub mod admin;
pub mod cleanup;
pub mod cli;
pub mod config;
pub mod core;
pub mod directories;
pub mod enroll;
pub mod front_ends;
pub mod identity;
pub mod init;
pub mod listener;
mod off_runtime;
pub mod policy;
pub mod reload;
pub mod run;
pub mod sources;
pub mod state_files;
mod trail;
#[cfg(any(feature = "ldap", feature = "oidc", feature = "acme"))]
mod trust;
#[cfg(any(feature = "oidc", feature = "acme"))]
mod web_client;
