//! pod-monitor: every execution pod's story is told to Kafka once, in order, whoever dies.
//!
//! ```text
//!  kube-apiserver ──LIST/WATCH──▶ watch ──Observation──▶ lifecycle (pure) ──Decision──▶ logs ──▶ publish ──one transaction──▶ Kafka
//!    pods by label                slim pods              step(told, input)              capture   group commit     events topic
//!                                                              ▲                                                   changelog topic[shard]
//!                                                              └──── told: Tracked per pod, restored at take-over ──────┘
//! ```

pub mod cleanup;
pub mod cli;
pub mod clock;
pub mod compose;
pub mod config;
pub mod evidence;
pub mod failpoint;
pub mod http;
pub mod leadership;
pub mod lifecycle;
pub mod logs;
pub mod memory;
pub mod ports;
pub mod publish;
pub mod replica;
pub mod reshard;
pub mod schema;
pub mod sharding;
pub mod telemetry;
pub mod verify;
pub mod watch;
pub mod worker;
