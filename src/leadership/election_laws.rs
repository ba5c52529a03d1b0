//! The laws of the election, whatever is late or lost.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

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
