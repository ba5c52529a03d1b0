//! The monitor seen from outside over HTTP: health, metrics, status.
//!
//! Only reads: nothing here changes what the monitor does, and no request can take more than a bounded answer.

pub mod health;
mod live;
mod page;
mod server;
pub mod status;

pub use health::Health;
pub use server::{Error, Server};
pub use status::Board;
