use std::collections::BTreeMap;

use proptest::prelude::*;

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
            "unless what was written on is known to be out of date: a death is often noticed before the release is seen",
            vec![
                (0, seen(1, "a")),
                (1, Input::Dead("a".into())),
                (3, seen(2, "")),
                (9, Input::Answered(Answer::Conflict)),
            ],
            vec![take(2, "", Why::Released)],
        ),
        (
            "or another has it by then",
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
fn who_is_cold_leaves_a_free_lease_to_others_for_a_retry_period() {
    let cold = Election { warm: false, ..Election::new("me", TIMES) };
    let (cold, commands) = cold.step(seen(1, ""), ms(100));
    assert_eq!((commands, cold.wake_at()), (vec![], Some(ms(1100))));
    let (_, commands) = cold.step(Input::Wake, ms(1100));
    assert_eq!(commands, [Command::Take(Some(record(1, "")), Why::Released)], "nobody else came");
}

#[test]
fn a_duration_written_by_hand_is_not_believed_beyond_a_minute() {
    let edited = Record { lease_duration: Duration::from_secs(86_400), ..record(1, "somebody") };
    let (election, _) = Election::new("me", TIMES).step(Input::Seen(Some(edited), Version(1)), ms(0));
    assert_eq!(election.wake_at(), Some(Duration::from_secs(60)));
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

/// Three replicas, one Lease on a server that compares and sets, with delays and losses of everything.
struct World {
    now: At,
    random: u64,
    /// What happens when, in order.
    agenda: BTreeMap<(At, u64), Happening>,
    count: u64,
    lease: Record,
    elections: Vec<Election>,
    /// Per replica: the next wake on the agenda.
    wakes: [Option<At>; 3],
    /// Per replica: since when it acts, and until when it may.
    acting: Vec<Option<(At, At)>>,
    /// (replica, from, to) of every tenure.
    tenures: Vec<(usize, At, At)>,
}

#[derive(Clone)]
enum Happening {
    /// A write of a replica reaches the server, which answers at this moment; `None`: the answer is lost or too late, and
    /// the replica has given it up, perhaps before the server has even read it.
    Write(usize, Version, Box<str>, Option<At>),
    Input(usize, Input),
    /// Each replica reads the Lease now and then, whatever its watch delivers.
    Look(usize),
}

impl World {
    fn new(seed: u64) -> Self {
        let elections = ["a", "b", "c"].map(|me| Election::new(me, TIMES)).to_vec();
        let acting = vec![None; elections.len()];
        let mut world = Self {
            now: At::ZERO,
            random: seed,
            agenda: BTreeMap::new(),
            count: 0,
            lease: record(1, ""),
            elections,
            wakes: [None; 3],
            acting,
            tenures: vec![],
        };
        for replica in 0..3 {
            world.later(0, 300, Happening::Look(replica));
        }
        world
    }

    fn number(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below.max(1)
    }

    fn later(&mut self, from_ms: u64, to_ms: u64, what: Happening) {
        let at = self.now + ms(from_ms + self.number(to_ms - from_ms));
        self.count += 1;
        self.agenda.insert((at, self.count), what);
    }

    fn run(&mut self, until: At, faulty: bool) {
        while let Some(((at, _), what)) = self.agenda.pop_first() {
            if at > until {
                self.agenda.insert((at, u64::MAX), what);
                return;
            }
            assert!(at >= self.now, "time goes on");
            self.now = at;
            match what {
                Happening::Input(replica, input) => self.input(replica, input, faulty),
                Happening::Look(replica) => {
                    let lease = self.lease.clone();
                    let input = Input::Seen(Some(lease.clone()), lease.version);
                    self.input(replica, input, faulty);
                    self.later(900, 1100, Happening::Look(replica));
                }
                Happening::Write(replica, version, holder, answer_at) => {
                    self.written(replica, version, holder, answer_at, faulty);
                }
            }
        }
    }

    fn written(&mut self, replica: usize, version: Version, holder: Box<str>, answer_at: Option<At>, faulty: bool) {
        let ours = self.lease.version == version;
        if ours {
            self.lease = Record { version: Version(version.0 + 1), holder, ..self.lease.clone() };
            for other in 0..3 {
                let seen = Input::Seen(Some(self.lease.clone()), self.lease.version);
                let lost = faulty && self.number(4) == 0;
                if !lost {
                    let slow = if faulty { 400 } else { 20 };
                    self.later(1, slow, Happening::Input(other, seen));
                }
            }
        }
        let answer = if ours { Answer::Ours(self.lease.version) } else { Answer::Conflict };
        if let Some(at) = answer_at {
            self.count += 1;
            self.agenda.insert((at, self.count), Happening::Input(replica, Input::Answered(answer)));
        }
    }

    /// Sends a write: it arrives, and is answered or given up.
    fn write(&mut self, replica: usize, version: Version, holder: Box<str>, faulty: bool) {
        let slow = if faulty { 1500 } else { 20 };
        let arrives = self.now + ms(1 + self.number(slow));
        let (answers, answer_by) = (arrives + ms(1 + self.number(slow)), self.now + ms(1000));
        let lost = faulty && self.number(5) == 0;
        let answer_at = Some(answers).filter(|at| !lost && *at <= answer_by);
        self.count += 2;
        self.agenda.insert((arrives, self.count - 1), Happening::Write(replica, version, holder, answer_at));
        if answer_at.is_none() {
            self.agenda.insert((answer_by, self.count), Happening::Input(replica, Input::Answered(Answer::Failed)));
        }
    }

    fn input(&mut self, replica: usize, input: Input, faulty: bool) {
        if input == Input::Wake {
            self.wakes[replica] = None;
        }
        // Frozen until after its deadline: a driver looks at the clock first, as the elector does.
        let overdue = self.elections[replica].wake_at().is_some_and(|at| at <= self.now);
        let inputs = if overdue && input != Input::Wake { vec![Input::Wake, input] } else { vec![input] };
        for input in inputs {
            let (next, commands) = self.elections[replica].clone().step(input, self.now);
            self.elections[replica] = next;
            for command in commands {
                self.carry_out(replica, command, faulty);
            }
        }
        if let Some(at) = self.elections[replica].wake_at().map(|at| at.max(self.now)) {
            let due = self.wakes[replica].is_some_and(|known| self.now <= known && known <= at);
            if !due {
                self.count += 1;
                self.agenda.insert((at, self.count), Happening::Input(replica, Input::Wake));
                self.wakes[replica] = Some(at);
            }
        }
    }

    fn carry_out(&mut self, replica: usize, command: Command, faulty: bool) {
        let me = self.elections[replica].me.clone();
        match command {
            Command::Take(record, _) => {
                let version = record.map_or(Version(0), |record| record.version);
                self.write(replica, version, me, faulty);
            }
            Command::Renew(version) => self.write(replica, version, me, faulty),
            Command::Release(version) => self.write(replica, version, "".into(), faulty),
            Command::Look => self.later(1, 30, Happening::Look(replica)),
            Command::Grant(_, until) => self.acting[replica] = Some((self.now, until)),
            Command::Extend(_, until) => {
                if let Some(acting) = &mut self.acting[replica] {
                    acting.1 = until;
                }
            }
            Command::Revoke(_) => {
                let (from, until) = self.acting[replica].take().expect("only a tenure is revoked");
                self.tenures.push((replica, from, self.now.min(until)));
                self.later(1, 200, Happening::Input(replica, Input::Drained));
            }
            Command::Done => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Without death notices and edits by hand no two tenures overlap, whatever is lost or late; and somebody leads.
    #[test]
    fn tenures_never_overlap_and_somebody_leads(seed: u64, events in proptest::collection::vec((0_u64..60_000, 0_usize..3, 0_u8..2), 0..12)) {
        let mut world = World::new(seed);
        for (at, replica, what) in events {
            let input = if what == 0 { Input::GiveUp(GiveUp::Watch) } else { Input::Doubted };
            world.count += 1;
            world.agenda.insert((ms(at), world.count), Happening::Input(replica, input));
        }
        world.run(ms(60_000), true);
        world.run(ms(90_000), false);
        let leading = world.acting.iter().flatten().count();
        prop_assert_eq!(leading, 1, "nobody leads, or two do: {:?}", world.elections);
        for (replica, acting) in world.acting.iter().enumerate() {
            if let Some((from, _)) = acting {
                world.tenures.push((replica, *from, world.now));
            }
        }
        let mut tenures = world.tenures.clone();
        tenures.sort_by_key(|(_, from, _)| *from);
        for pair in tenures.windows(2) {
            prop_assert!(pair[0].2 <= pair[1].1, "{:?} overlap", pair);
        }
    }

    /// Any inputs in any order: no panic, at most one write on its way, and a grant is always ended before the next.
    #[test]
    fn any_inputs_keep_the_order_of_commands(inputs in proptest::collection::vec((0_u64..4000, 0_u8..12, 0_u64..6), 0..60)) {
        let (mut election, mut now, mut writing, mut acting) = (Election::new("me", TIMES), At::ZERO, false, false);
        for (pause, kind, n) in inputs {
            now += ms(pause);
            let input = match kind {
                0 => seen(n, ""),
                1 => seen(n, "me"),
                2 => seen(n, "b"),
                3 => Input::Seen(None, Version(n)),
                4 if writing => ours(n),
                5 if writing => Input::Answered(Answer::Conflict),
                6 if writing => Input::Answered(Answer::Failed),
                7 => Input::Dead("b".into()),
                8 => Input::GiveUp(GiveUp::Kafka),
                9 if !acting => Input::Drained,
                10 if n == 0 => Input::Stop,
                _ => Input::Wake,
            };
            writing &= !matches!(input, Input::Answered(_));
            let (next, commands) = election.step(input, now);
            election = next;
            for command in commands {
                match command {
                    Command::Take(..) | Command::Renew(_) | Command::Release(_) => {
                        prop_assert!(!writing, "two writes at once");
                        writing = true;
                    }
                    Command::Grant(..) => {
                        prop_assert!(!acting);
                        acting = true;
                    }
                    Command::Extend(..) => prop_assert!(acting, "a tenure that is over is extended"),
                    Command::Revoke(_) => {
                        prop_assert!(acting);
                        acting = false;
                    }
                    Command::Look | Command::Done => {}
                }
            }
        }
    }
}
