//! What happened: the pure core that turns observations of a pod into its story.
//!
//! [`decide::step`] asks [`identity`] who the execution is, [`container`] which container counts and [`cause`] how it
//! ended ([`cause_docs`] explains each cause to people), [`user_rules`] what the user says of that; [`event`] is what is
//! told, [`tracked`] what is remembered of the telling, [`wanted`] what is still to be asked of the cluster, [`trace`] the trace that an
//! execution stands in.

pub mod captured;
pub mod cause;
pub mod cause_docs;
pub mod container;
pub mod decide;
pub mod event;
pub mod explain;
pub mod identity;
pub mod rules;
pub mod stall;
pub mod trace;
pub mod tracked;
pub mod user_rules;
pub mod wanted;
