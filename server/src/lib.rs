//! The Adit gateway: identity, store, sessions, front-ends and the admin socket.

pub mod admin;
pub mod cleanup;
pub mod cli;
pub mod config;
pub mod connect_ip;
pub mod directories;
pub mod enroll;
pub mod gateway;
pub mod identity;
pub mod init;
pub mod router;
pub mod run;
pub mod session;
pub mod state_files;
pub mod store;
