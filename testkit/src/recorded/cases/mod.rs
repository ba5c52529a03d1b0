//! All cases, by theme.

mod containers;
mod ended;
mod programs;
mod starting;

use super::steps::Case;

/// Every case, in the order in which they are recorded.
pub fn all() -> Vec<Case> {
    let themes = [programs::all(), starting::all(), containers::all(), ended::all()];
    themes.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn cases_have_names_of_their_own_and_stories() {
        let cases = all();
        let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len(), "{names:?}");
        for case in cases {
            assert!(!case.stories.is_empty() && !case.steps.is_empty(), "{}", case.name);
        }
    }
}
