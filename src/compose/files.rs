//! Files and sockets: each shard keeps some open, and a process that has run out of them does nothing right.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process needs besides its shards: clients, its own files, the other replicas and probes.
const BASE: u64 = 200;
/// What it may have open besides that, if the system lets it: whoever else asks by HTTP. Fewer do no harm but to them.
const ROOM: u64 = crate::http::CONNECTIONS_MAX as u64;
/// What each shard keeps open: three producers and a reader with some brokers, watches; measured 34 with one broker.
const PER_SHARD: u64 = 60;

/// The system lets us open too few.
#[derive(Debug, thiserror::Error)]
#[error(
    "{shards} shards need {needed} open files, and the system allows {allowed}: raise the limit (ulimit -n, LimitNOFILE, or that \
     of the container runtime), or start with fewer shards"
)]
pub struct TooFew {
    shards: u32,
    needed: u64,
    allowed: u64,
}

/// Raises our own limit as far as these shards need.
///
/// # Errors
/// When the system does not allow that many.
pub(super) fn allow(shards: u32) -> Result<(), TooFew> {
    let limit = getrlimit(Resource::Nofile);
    let needed = needed(shards);
    let Some(raised) = raised(needed, &limit).map_err(|allowed| TooFew { shards, needed, allowed })? else {
        return Ok(());
    };
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }) {
        tracing::warn!(%error, needed, "the limit of open files cannot be raised");
    }
    Ok(())
}

fn needed(shards: u32) -> u64 {
    BASE + PER_SHARD * u64::from(shards)
}

/// The limit to be set, if any; what is allowed, where that is too little. No limit is `None` there.
fn raised(needed: u64, limit: &Rlimit) -> Result<Option<u64>, u64> {
    let (Some(current), most) = (limit.current, limit.maximum.unwrap_or(u64::MAX)) else { return Ok(None) };
    let wanted = (needed + ROOM).min(most);
    if most < needed { Err(most) } else { Ok((current < wanted).then_some(wanted)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_needed_and_too_low_a_one_is_refused() {
        let limit = |current, maximum| Rlimit { current, maximum };
        assert_eq!((needed(1), needed(128)), (260, 7880));
        assert_eq!(raised(260, &limit(Some(1024), Some(4096))), Ok(None));
        assert_eq!(raised(680, &limit(Some(1024), Some(4096))), Ok(Some(1192)), "with room for who asks by HTTP");
        assert_eq!(raised(680, &limit(Some(1024), Some(1100))), Ok(Some(1100)), "or as much as there may be");
        assert_eq!(raised(680, &limit(Some(1024), Some(1024))), Ok(None));
        assert_eq!(raised(2120, &limit(Some(1024), None)), Ok(Some(2632)));
        assert_eq!(raised(2120, &limit(Some(1024), Some(1024))), Err(1024));
        assert_eq!(raised(2120, &limit(None, None)), Ok(None));
        let said = TooFew { shards: 32, needed: 2120, allowed: 1024 }.to_string();
        assert!(said.contains("32 shards need 2120 open files") && said.contains("1024"), "{said}");
    }
}
