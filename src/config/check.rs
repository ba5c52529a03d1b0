//! The settings of `run` as `check` looks at them: what is wrong with one part does not hide the rest.

use std::{sync::Arc, time::Duration};

use super::{Config, Error, RunArgs, Surroundings, Variables, effective, layers, layers::Origins, lease, rules_file};
use crate::{leadership::election::Times, lifecycle::user_rules::UserRules};

/// What each part of the settings came to.
#[derive(Debug)]
pub struct Judged {
    /// All but the following, with defaults in their places where they are wrong.
    pub config: Result<Config, Error>,
    /// The durations of a Lease.
    pub durations: Result<Times, Error>,
    /// The rules of the user, where there are any.
    pub rules: Option<Result<Arc<UserRules>, Error>>,
}

/// The settings of a command that has those of `run` besides its own, from all layers.
///
/// # Errors
/// When a value cannot be read by itself, or `wrong` finds something, as for [`super::load_own`].
pub fn load<A: clap::Args, O>(
    given: &clap::ArgMatches,
    variables: Variables<'_>,
    around: &Surroundings,
    split: fn(A) -> (RunArgs, O),
    wrong: impl FnOnce(&A, &dyn Fn(&str) -> String) -> Option<String>,
) -> Result<(Judged, O), Error> {
    let (args, origins) = layers::resolve::<A>(given, variables)?;
    if let Some(why) = wrong(&args, &|key| effective::at(&origins, key)) {
        return Err(Error::Conflict { why });
    }
    let (run, own) = split(args);
    Ok((judge(run, &origins, around), own))
}

fn judge(mut args: RunArgs, origins: &Origins, around: &Surroundings) -> Judged {
    let rules = args.story.rules.take().map(|path| rules_file::read(&path).map(Arc::new));
    let durations = lease::of(&args.lease);
    if durations.is_err() {
        // Any that fit: nothing else is judged by them.
        args.lease.lease_duration = Duration::from_secs(5);
        args.lease.renew_deadline = Duration::from_secs(3);
        args.lease.retry_period = Duration::from_secs(1);
    }
    Judged { config: effective::build(args, origins, around), durations, rules }
}
