use super::*;

const TIMES: Times = Times {
    lease_duration: Duration::from_secs(5),
    renew_deadline: Duration::from_secs(3),
    retry_period: Duration::from_secs(1),
};

fn ms(ms: u64) -> At {
    Duration::from_millis(ms)
}

fn record(version: u64, holder: &str) -> Record {
    Record {
        version: Version(version),
        holder: holder.into(),
        lease_duration: TIMES.lease_duration,
        transitions: 0,
        address: None,
    }
}

fn seen(version: u64, holder: &str) -> Input {
    Input::Seen(Some(record(version, holder)), Version(version))
}

/// Read by a LIST: other objects have moved the server's version on.
fn listed(version: u64, holder: &str) -> Input {
    Input::Seen(Some(record(version, holder)), Version(version + 1000))
}

fn ours(version: u64) -> Input {
    Input::Answered(Answer::Ours(Version(version)))
}

/// Takes inputs at moments in ms; gives the commands of each.
fn play(inputs: &[(u64, Input)]) -> (Election, Vec<Vec<Command>>) {
    let mut election = Election::new("me", TIMES);
    let mut told = Vec::new();
    for (at, input) in inputs {
        let (next, commands) = election.step(input.clone(), ms(*at));
        election = next;
        told.push(commands);
    }
    (election, told)
}

/// A story: inputs at moments in ms, and what the last of them commands.
type Case = (&'static str, Vec<(u64, Input)>, Vec<Command>);

fn check(cases: Vec<Case>) {
    for (name, inputs, expected) in cases {
        let (_, told) = play(&inputs);
        assert_eq!(told.last(), Some(&expected), "{name}");
    }
}

/// A story of who holds the Lease, granted at 10 ms with version 2.
fn held(more: &[(u64, Input)]) -> Vec<(u64, Input)> {
    [&[(0, seen(1, "")), (10, ours(2))], more].concat()
}

#[test]
fn a_standby_takes_what_is_absent_released_silent_dead_or_its_own() {
    use Command as C;
    let take = |version, holder: &str, why| C::Take(Some(record(version, holder)), why);
    check(vec![
        ("an absent Lease is made", vec![(0, Input::Seen(None, Version(9)))], vec![C::Take(None, Why::Absent)]),
        (
            "a released one is taken at once",
            vec![(0, seen(1, "a")), (50, seen(2, ""))],
            vec![take(2, "", Why::Released)],
        ),
        ("a held one is not", vec![(0, seen(1, "a")), (4999, Input::Wake)], vec![]),
        ("silence of a lease duration", vec![(0, seen(1, "a")), (5000, Input::Wake)], vec![take(1, "a", Why::Silent)]),
        ("a renewal begins it anew", vec![(0, seen(1, "a")), (900, seen(2, "a")), (5000, Input::Wake)], vec![]),
        (
            "an older sighting does not",
            vec![(0, seen(3, "a")), (900, seen(2, "a")), (5000, Input::Wake)],
            vec![take(3, "a", Why::Silent)],
        ),
        (
            "nor does another look at the same",
            vec![(0, seen(1, "a")), (900, listed(1, "a")), (5000, Input::Wake)],
            vec![take(1, "a", Why::Silent)],
        ),
        ("its holder is dead", vec![(0, seen(1, "a")), (50, Input::Dead("a".into()))], vec![take(1, "a", Why::Dead)]),
        ("an earlier holder is dead", vec![(0, seen(2, "b")), (50, Input::Dead("a".into()))], vec![]),
        ("it was ours all along", vec![(0, seen(2, "me"))], vec![take(2, "me", Why::Ours)]),
        ("a conflict is looked into", vec![(0, seen(1, "")), (9, Input::Answered(Answer::Conflict))], vec![C::Look]),
        (
            "and not repeated at once",
            vec![(0, seen(1, "")), (9, Input::Answered(Answer::Conflict)), (10, Input::Wake)],
            vec![],
        ),
        (
            "a death survives a failed write",
            vec![
                (0, seen(1, "a")),
                (1, Input::Dead("a".into())),
                (9, Input::Answered(Answer::Failed)),
                (1009, Input::Wake),
            ],
            vec![take(1, "a", Why::Dead)],
        ),
    ]);
}

#[test]
fn a_conflict_is_tried_again_at_once_where_what_was_seen_since_explains_it() {
    let take = |version, holder: &str, why| Command::Take(Some(record(version, holder)), why);
    check(vec![
        (
            "a death is often noticed before the release is seen",
            vec![
                (0, seen(1, "a")),
                (1, Input::Dead("a".into())),
                (3, seen(2, "")),
                (9, Input::Answered(Answer::Conflict)),
            ],
            vec![take(2, "", Why::Released)],
        ),
        (
            "unless another has it by then",
            vec![(0, seen(1, "")), (3, seen(2, "b")), (9, Input::Answered(Answer::Conflict))],
            vec![],
        ),
        (
            "a renewal that was on its way when its writer died does not bring it back",
            vec![
                (0, seen(1, "a")),
                (50, Input::Dead("a".into())),
                (55, seen(2, "a")),
                (60, Input::Answered(Answer::Conflict)),
            ],
            vec![take(2, "a", Why::Dead)],
        ),
        (
            "a second one does: the notice was wrong",
            vec![
                (0, seen(1, "a")),
                (50, Input::Dead("a".into())),
                (55, seen(2, "a")),
                (60, Input::Answered(Answer::Conflict)),
                (65, seen(3, "a")),
                (70, Input::Answered(Answer::Conflict)),
            ],
            vec![],
        ),
        (
            "a death that is heard while taking counts for who was quicker",
            vec![
                (0, seen(1, "")),
                (3, seen(2, "b")),
                (5, Input::Dead("b".into())),
                (9, Input::Answered(Answer::Conflict)),
            ],
            vec![take(2, "b", Why::Dead)],
        ),
        (
            "one that is heard before anything is seen counts as well",
            vec![(0, Input::Dead("a".into())), (5, seen(1, "a"))],
            vec![take(1, "a", Why::Dead)],
        ),
    ]);
}

#[test]
fn a_death_heard_while_draining_counts_afterwards() {
    use Command as C;
    let story =
        held(&[(100, seen(3, "b")), (150, Input::Dead("b".into())), (200, Input::Drained), (210, seen(3, "b"))]);
    let (_, told) = play(&story);
    assert_eq!(told[2], [C::Revoke(Ended::Lost)]);
    assert_eq!(told[4], [C::Look], "it rests, and looks");
    assert_eq!(told[5], [C::Take(Some(record(3, "b")), Why::Dead)]);
}

#[test]
fn who_is_cold_or_not_the_next_in_turn_leaves_a_free_lease_to_others_for_a_while() {
    let cold = Election { handicap: TIMES.retry_period, ..Election::new("me", TIMES) };
    let (cold, commands) = cold.step(seen(1, ""), ms(100));
    assert_eq!((commands, cold.wake_at()), (vec![], Some(ms(1100))));
    let (_, commands) = cold.step(Input::Wake, ms(1100));
    assert_eq!(commands, [Command::Take(Some(record(1, "")), Why::Released)], "nobody else came");
}

#[test]
fn a_duration_written_by_hand_is_not_believed_beyond_three_of_ours() {
    let edited = Record { lease_duration: Duration::from_secs(86_400), ..record(1, "somebody") };
    let (election, _) = Election::new("me", TIMES).step(Input::Seen(Some(edited), Version(1)), ms(0));
    assert_eq!(election.wake_at(), Some(3 * TIMES.lease_duration));
}

#[test]
fn the_vacancy_counts_from_the_last_sign_of_the_holder() {
    let vacant = |inputs: &[(u64, Input)], why, now| play(inputs).0.vacant_for(why, ms(now));
    let dead = [(0, seen(1, "a")), (900, Input::Dead("a".into()))];
    assert_eq!(vacant(&dead, Why::Dead, 904), ms(4));
    let straggler = [&dead[..], &[(903, seen(2, "a")), (905, Input::Answered(Answer::Conflict))]].concat();
    assert_eq!(vacant(&straggler, Why::Dead, 910), ms(10), "over all tries");
    assert_eq!(vacant(&[(0, seen(1, "a")), (5000, Input::Wake)], Why::Silent, 5000), ms(5000));
    assert_eq!(vacant(&[(0, seen(1, "a")), (50, seen(2, ""))], Why::Released, 53), ms(3));
}

#[test]
fn a_holder_acts_until_its_deadline_or_until_another_holds() {
    use Command as C;
    check(vec![
        ("granted from when it was asked", held(&[]), vec![C::Grant(ms(0), ms(3000))]),
        ("an answer after the deadline grants nothing", vec![(0, seen(1, "")), (3000, ours(2))], vec![C::Look]),
        ("renewed every retry period", held(&[(1000, Input::Wake)]), vec![C::Renew(Version(2))]),
        (
            "by the Lease's own version",
            held(&[(900, listed(2, "me")), (1000, Input::Wake)]),
            vec![C::Renew(Version(2))],
        ),
        ("with one write at a time", held(&[(1000, Input::Wake), (2000, Input::Wake)]), vec![]),
        (
            "extended from when it was asked",
            held(&[(1000, Input::Wake), (1900, ours(3))]),
            vec![C::Extend(ms(1000), ms(4000))],
        ),
        ("the deadline passes", held(&[(1000, Input::Wake), (3000, Input::Wake)]), vec![C::Revoke(Ended::Deadline)]),
        (
            "a late renewal still counts from its asking",
            held(&[(2000, Input::Wake), (3500, ours(3))]),
            vec![C::Extend(ms(2000), ms(5000))],
        ),
        (
            "one that is too late does not",
            held(&[(1000, Input::Wake), (4000, ours(3))]),
            vec![C::Revoke(Ended::Deadline)],
        ),
        ("another holds it", held(&[(500, seen(3, "b"))]), vec![C::Revoke(Ended::Lost)]),
        ("it was deleted", held(&[(500, Input::Seen(None, Version(3)))]), vec![C::Revoke(Ended::Lost)]),
        ("an old sighting of another is no news", held(&[(500, seen(1, "b"))]), vec![]),
        ("edited by hand, still ours", held(&[(500, seen(7, "me")), (1000, Input::Wake)]), vec![C::Renew(Version(7))]),
        ("a doubt is answered by a renewal", held(&[(500, Input::Doubted)]), vec![C::Renew(Version(2))]),
    ]);
}

#[test]
fn a_lease_is_let_go_when_everything_is_settled() {
    use Command as C;
    check(vec![
        ("asked to stop", held(&[(500, Input::Stop)]), vec![C::Revoke(Ended::Stop)]),
        ("released when drained", held(&[(500, Input::Stop), (600, Input::Drained)]), vec![C::Release(Version(2))]),
        (
            "not before a write is answered",
            held(&[(1000, Input::Wake), (1001, Input::Stop), (1002, Input::Drained)]),
            vec![],
        ),
        (
            "and then with its version",
            held(&[(1000, Input::Wake), (1001, Input::Stop), (1002, Input::Drained), (1003, ours(5))]),
            vec![C::Release(Version(5))],
        ),
        ("renewed while draining", held(&[(900, Input::Stop), (1000, Input::Wake)]), vec![C::Renew(Version(2))]),
        ("a lost one is not released", held(&[(500, seen(3, "b")), (600, Input::Drained)]), vec![C::Look]),
        ("the end", held(&[(500, Input::Stop), (600, Input::Drained), (610, ours(3))]), vec![C::Done]),
        (
            "stopped while the answer is awaited",
            vec![(0, seen(1, "")), (5, Input::Stop), (9, ours(2))],
            vec![C::Release(Version(2))],
        ),
        ("gives up", held(&[(500, Input::GiveUp(GiveUp::Watch))]), vec![C::Revoke(Ended::GaveUp(GiveUp::Watch))]),
    ]);
}

#[test]
fn who_gave_up_lets_others_go_first() {
    let given_up = [
        (0, seen(1, "")),
        (10, ours(2)),
        (500, Input::GiveUp(GiveUp::Kafka)),
        (600, Input::Drained),
        (610, ours(3)),
        (620, seen(3, "")),
    ];
    let (election, told) = play(&given_up);
    assert_eq!(told[5], [], "its own release is not for itself");
    assert_eq!(election.wake_at(), Some(ms(10_500)));
    let (_, told) = play(&[&given_up[..], &[(10_500, Input::Wake)]].concat());
    assert_eq!(told[6], [Command::Take(Some(record(3, "")), Why::Released)], "unless nobody does");
}

#[path = "election_laws.rs"]
mod laws;

#[test]
fn one_that_becomes_the_next_in_turn_takes_at_once() {
    let later = Election { handicap: TIMES.retry_period, ..Election::new("me", TIMES) };
    let (later, commands) = later.step(seen(1, ""), ms(100));
    assert_eq!(commands, vec![]);
    let (_, commands) = Election { handicap: ms(0), ..later }.step(Input::Wake, ms(110));
    assert_eq!(commands, [Command::Take(Some(record(1, "")), Why::Released)]);
}

#[test]
fn a_shard_that_is_given_away_is_left_to_others_for_two_retry_periods_only() {
    let story = held(&[
        (500, Input::GiveUp(GiveUp::Share)),
        (510, Input::Drained),
        (520, Input::Answered(Answer::Ours(Version(9)))),
        (530, seen(9, "")),
        (500 + 2 * 1000 - 1, Input::Wake),
        (500 + 2 * 1000, Input::Wake),
    ]);
    let (_, told) = play(&story);
    let takes: Vec<bool> = told.iter().map(|told| told.iter().any(|c| matches!(c, Command::Take(..)))).collect();
    assert_eq!(takes[takes.len() - 2..], [false, true], "{told:?}");
}
