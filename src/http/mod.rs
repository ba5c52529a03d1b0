//! The monitor seen from outside over HTTP: health, metrics, status.
//!
//! Only reads: nothing here changes what the monitor does, no request can take more than a bounded answer, and only so many
//! can be connected at a time.

mod clients;
pub mod health;
mod live;
mod page;
mod server;
pub mod status;

pub use clients::ALL_MAX as CONNECTIONS_MAX;
pub use health::Health;
pub use server::{Error, Server};
pub use status::Board;
