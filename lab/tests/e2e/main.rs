//! The end-to-end tests: the real programs in network namespaces, real traffic, and strangers' software.
//!
//! They are one program, since linking costs more than most of them take. Tests of it run beside each other; those that
//! move much hold `adit_testing::alone`. No verdict hangs on a rate: what a figure says about speed, `adit-bench`
//! measures.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failed expectation ends a test, which says what it saw"
)]

mod acme;
mod admission;
mod anyconnect;
mod anyconnect_client;
mod captive_portal;
mod carrier_choice;
mod clients;
mod clocks;
mod coexistence;
mod configuration;
mod daemons;
mod directory;
mod esp;
mod esp_hostile;
mod esp_paths;
mod gateway_guards;
mod gateway_rules;
mod generator;
mod guards;
mod harness;
mod idle;
mod interop;
mod kill_switch;
mod leaks;
mod lifecycle;
mod listener;
mod lockout;
mod logins;
mod middleboxes;
mod moves;
mod nat64;
mod netcheck;
mod oidc;
mod onboarding;
mod people;
mod policy;
mod poor_hosts;
mod poor_paths;
mod radius;
mod recovery;
mod reload;
mod resolver;
mod restarts;
mod services;
mod several_names;
mod sleep;
mod spoofing;
mod tls;
mod traffic;
mod unproven;
mod versions;
mod watching;
mod wrong_clock;
