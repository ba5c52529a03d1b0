//! The status page as a person has it before them: three real monitors on the real stack, and a real Chromium.
//!
//! Needs the stack that the environment names and Debian's `chromium`; either missing fails.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test measures, and may stop at the first surprise"
)]

mod crew;
mod hand_over;
mod reading;
