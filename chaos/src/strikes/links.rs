//! Faults of the ways between the leader and its servers.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::clients::proxy::{Direction, Passage, Proxy};

use crate::crew::Crew;

/// A slow link's pause between two pieces.
const SLOW: Duration = Duration::from_millis(150);
/// How long a link is slow, and connections break.
const LASTS: Duration = Duration::from_secs(3);
/// Between two breaks.
const BREAK_EVERY: Duration = Duration::from_millis(100);

/// The other end of a link.
#[derive(Debug, Clone, Copy)]
pub(super) enum Server {
    Api,
    Kafka,
}

/// Which directions of a link are hit.
pub(crate) const WAYS: [(&str, &[Direction]); 3] = [
    ("requests", &[Direction::There]),
    ("answers", &[Direction::Back]),
    ("both directions", &[Direction::There, Direction::Back]),
];

fn link(crew: &mut Crew, index: usize, server: Server) -> Result<Proxy> {
    let ways = &crew.replicas.one(index).ways;
    Ok(match server {
        Server::Api => ways.api.clone(),
        Server::Kafka => ways.kafka.clone(),
    })
}

/// Nothing passes until another leads.
pub(super) async fn cut(crew: &mut Crew, server: Server) -> Result<String> {
    let (index, holder) = crew.leader().await?;
    let (name, directions) = WAYS[crew.decks.links[server as usize][0].deal(&mut crew.random)];
    let link = link(crew, index, server)?;
    crew.strikes_now();
    directions.iter().for_each(|direction| link.set(*direction, Passage::Cut));
    let next = crew.leader_but(&holder).await;
    link.heal();
    next.map(|_| format!("{name} of {holder}"))
}

pub(super) async fn slow(crew: &mut Crew, server: Server) -> Result<String> {
    let (index, holder) = crew.leader().await?;
    let (name, directions) = WAYS[crew.decks.links[server as usize][1].deal(&mut crew.random)];
    let link = link(crew, index, server)?;
    crew.strikes_now();
    directions.iter().for_each(|direction| link.set(*direction, Passage::Slow(SLOW)));
    crew.lasts(LASTS).await;
    link.heal();
    Ok(format!("{name} of {holder}, {SLOW:?} a piece"))
}

pub(super) async fn break_watches(crew: &mut Crew) -> Result<String> {
    let (_, holder) = crew.leader().await?;
    let times = LASTS.as_millis() / BREAK_EVERY.as_millis();
    let mut broken = 0;
    for _ in 0..times {
        broken += crew.replicas.all().iter().map(|replica| replica.ways.api.reset()).sum::<usize>();
        crew.lasts(BREAK_EVERY).await;
    }
    ensure!(broken > 0, "no connection to the API server was open in {times} looks");
    Ok(format!("{broken} connections of all replicas, in {times} rounds, while {holder} led"))
}
