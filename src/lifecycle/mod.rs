//! What happened: the pure core that turns observations into events.

pub mod event;
pub mod tracked;
