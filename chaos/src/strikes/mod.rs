//! One fault: done, waited out, mended.

mod lease;
mod links;
mod processes;
mod servers;

use anyhow::Result;

use crate::{crew::Crew, kind::Kind};
pub(crate) use lease::EDITS;
pub(crate) use links::WAYS;
pub(crate) use processes::{HANDING_OVER, TAKING_OVER};

/// Strikes, waits until another leads where one must, and mends. What it did in particular, for people.
pub(crate) async fn strike(crew: &mut Crew, kind: Kind) -> Result<String> {
    match kind {
        Kind::Kill => processes::kill(crew).await,
        Kind::Terminate => processes::terminate(crew).await,
        Kind::Freeze => processes::freeze(crew).await,
        Kind::KillAll => processes::kill_all(crew).await,
        Kind::DieTakingOver => processes::die_taking_over(crew).await,
        Kind::DieHandingOver => processes::die_handing_over(crew).await,
        Kind::ClockJump => processes::clock_jump(crew).await,
        Kind::CutApi => links::cut(crew, links::Server::Api).await,
        Kind::SlowApi => links::slow(crew, links::Server::Api).await,
        Kind::CutKafka => links::cut(crew, links::Server::Kafka).await,
        Kind::SlowKafka => links::slow(crew, links::Server::Kafka).await,
        Kind::BreakWatches => links::break_watches(crew).await,
        Kind::KillApiServer => servers::kill_api_server(crew).await,
        Kind::PauseEtcd => servers::pause_etcd(crew).await,
        Kind::Compact => servers::compact(crew).await,
        Kind::KillKafka => servers::kill_kafka(crew).await,
        Kind::DeleteLease => lease::delete(crew).await,
        Kind::EditLease => lease::edit(crew).await,
    }
}
