//! Pods in: what the API server says, as slim data.

pub mod pod;
