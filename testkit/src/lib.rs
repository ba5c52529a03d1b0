//! What tests, chaos runs and `xtask` share: a real Kubernetes and a real Kafka, without Docker.
//!
//! The default features need neither a C library nor a client of Kubernetes or Kafka, because
//! `xtask` installs the packages that those need and must build before them.
#![allow(
    clippy::disallowed_methods,
    reason = "test tooling measures and waits on the real clock; nothing here decides for the service"
)]

pub mod chart;
#[cfg(feature = "clients")]
pub mod clients;
#[cfg(feature = "clients")]
pub mod counting;
#[cfg(feature = "clients")]
pub mod demo;
pub mod machine;
pub mod monitor_image;
#[cfg(feature = "clients")]
pub mod recorded;
#[cfg(feature = "clients")]
pub mod screenshot;
pub mod stack;
