//! Pods in: LIST and WATCH by label selector, slim pods out.
//!
//! [`api`] asks the API server, [`lines`] reads what a watch brings, [`frame`] turns bytes into [`pod`]s, [`stream`] keeps
//! one watch alive for ever and [`reconcile`] compares a LIST with what has been told.

pub mod api;
pub mod frame;
pub mod lines;
pub mod pod;
pub mod reconcile;
pub mod stream;
pub mod traffic;
pub mod url;
