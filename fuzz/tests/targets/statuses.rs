//! Lines of a watch, as an API server could send them: decoded, judged, told, for the whole life of some pods.
//!
//! One line is one event of the watch, as tests/fixtures/recorded has them (`at` moves the clock), or what else happens to
//! a pod: `{"do":"wait","seconds":5}`, `tick`, `left`, `missing`, `settle`, `{"do":"captured","text":"..."}`,
//! `{"do":"asked","events":{...},"job":{...}}`, which later captures bring.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use pod_monitor::{
    config::rules_file,
    lifecycle::{
        decide::Input,
        event::{Captured, EarlierEnd},
        identity,
        rules::Rules,
    },
    logs::{Report, report::Reader},
    watch::{
        frame::{Frame, read_frame, read_page},
        pod::{Decoded, Pod, PodUid, decode},
    },
};
use serde_json::Value;

use super::{
    evidence::{self, Answers},
    life::{self, Life, late},
    recordings,
};

/// Most lines that count: a pod's life has ten.
const LINES_MAX: usize = 64;
/// Most pods that count.
const PODS_MAX: usize = 6;

/// Rules that are asked of every failure.
const RULES: &str = r#"
rules:
  - {name: by-event, match: {event: {reason: FailedMount}}, category: infra}
  - {name: by-code, match: {exit-codes: [42, 100-110], termination-message: 'GPU \d+'}, cause: gpu_lost, retryable: true}
  - {name: by-condition, match: {condition: {type: DisruptionTarget}}, hint: try again}
  - {name: by-message, match: {message: '(?i)quota|evict'}, category: quota}
"#;

struct World {
    rules: Rules,
    now: Timestamp,
    lives: BTreeMap<PodUid, (Life, Pod)>,
    /// Which pod was shown last.
    latest: Option<PodUid>,
    /// What the API server answered last.
    answers: Answers,
}

pub(super) fn run(data: &[u8]) {
    let user = rules_file::parse("rules.yaml".as_ref(), RULES).expect("rules of ours");
    let now = "2026-11-25T10:00:00Z".parse().unwrap();
    let mut world = World {
        rules: life::rules(Arc::new(user)),
        now,
        lives: BTreeMap::new(),
        latest: None,
        answers: Answers::default(),
    };
    for line in data.split(|byte| *byte == b'\n').take(LINES_MAX) {
        // As the watch does it: what is no text is no event.
        let Ok(line) = std::str::from_utf8(line) else { continue };
        world.line(line);
    }
    world.end();
}

impl World {
    fn line(&mut self, line: &str) {
        let value = serde_json::from_str::<Value>(line).unwrap_or_default();
        if let Some(at) = value["at"].as_str().and_then(|at| at.parse::<Timestamp>().ok()) {
            // Neither back, nor to where no clock will ever be.
            self.now = at.clamp(self.now, late());
        }
        if let Some(what) = value["do"].as_str() {
            return self.happens(what, &value);
        }
        let frame = read_frame(line);
        self.same_in_a_list(&value, &frame);
        match frame {
            Frame::Applied(decoded) => self.applied(decoded),
            Frame::Deleted(decoded) => {
                if let (Some(pod), _) = decoded.split() {
                    self.take(&pod);
                    self.lose(&pod);
                }
            }
            Frame::Bookmark(_) | Frame::Expired | Frame::Error { .. } | Frame::Garbled(_) => {}
        }
    }

    fn applied(&mut self, decoded: Decoded) {
        if let (Some(pod), _) = decoded.split()
            && self.take(&pod)
        {
            self.see(&pod);
        }
    }

    /// Whether there is room for it.
    fn take(&mut self, pod: &Pod) -> bool {
        let uid = &pod.metadata.uid;
        if !self.lives.contains_key(uid) {
            if self.lives.len() == PODS_MAX {
                return false;
            }
            self.lives.insert(uid.clone(), (Life::new(uid.clone()), pod.clone()));
        }
        self.latest = Some(uid.clone());
        true
    }

    fn see(&mut self, pod: &Pod) {
        let earlier = self.earlier(pod);
        let (now, rules) = (self.now, &self.rules);
        let Some((life, last)) = self.lives.get_mut(&pod.metadata.uid) else { return };
        life.see(pod, earlier.as_ref(), now, rules);
        if pod.metadata.resource_version >= last.metadata.resource_version {
            *last = pod.clone();
        }
    }

    fn lose(&mut self, pod: &Pod) {
        let (now, rules) = (self.now, &self.rules);
        if let Some((life, _)) = self.lives.get_mut(&pod.metadata.uid) {
            life.lose(Some(pod), now, rules);
        }
    }

    /// How another pod of the same execution ended.
    fn earlier(&self, pod: &Pod) -> Option<EarlierEnd> {
        let execution = identity::ids(&pod.metadata, &self.rules.ids).execution_id;
        let others = self.lives.values().filter(|(life, _)| life.uid != pod.metadata.uid);
        let tracked = others.filter_map(|(life, _)| Some((&life.uid, life.told.as_ref()?)));
        tracked.filter(|(_, told)| told.execution_id == execution).find_map(|(uid, told)| told.ended(uid))
    }

    fn happens(&mut self, what: &str, value: &Value) {
        if what == "asked" {
            self.answers = Answers::read(value);
        }
        let (now, rules) = (self.now, &self.rules);
        let Some((life, last)) = self.latest.as_ref().and_then(|uid| self.lives.get_mut(uid)) else { return };
        match what {
            "wait" => {
                let seconds = value["seconds"].as_i64().unwrap_or(1).clamp(0, 1_000_000);
                self.now = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now).min(late());
            }
            "tick" => life.feed(Input::Tick { now }, rules),
            "left" => life.feed(Input::Left { version: last.metadata.resource_version }, rules),
            "missing" => life.lose(None, now, rules),
            "settle" => {
                let pod = last.clone();
                life.see(&pod, None, now, rules);
            }
            "captured" => {
                let captured = printed(value["text"].as_str().unwrap_or_default(), life);
                let captured = self.answers.with(captured);
                life.captured(captured, now, rules);
            }
            _ => {}
        }
    }

    /// A LIST and a watch make the same of the same object.
    fn same_in_a_list(&self, value: &Value, frame: &Frame) {
        let (Frame::Applied(in_watch) | Frame::Deleted(in_watch)) = frame else { return };
        let object = value["object"].to_string();
        let page = read_page(&format!(r#"{{"metadata":{{"resourceVersion":"1"}},"items":[{object},{object}]}}"#));
        let page = page.expect("a page of ours");
        assert_eq!(page.pods.len(), 2);
        // Keys that stand twice are lost on the way through a tree; then only that both can be read is the same.
        assert_eq!(page.pods[0], page.pods[1]);
        assert_eq!(page.pods[0], decode(&object));
        if let (Decoded::Whole(in_watch), Decoded::Whole(in_list)) = (in_watch, &page.pods[0]) {
            assert_eq!(in_watch.metadata.uid.0.is_empty(), in_list.metadata.uid.0.is_empty());
        }
    }

    /// Everything ends in the end, and is told.
    fn end(&mut self) {
        let rules = &self.rules;
        for (life, last) in self.lives.values_mut() {
            life.feed(Input::Tick { now: late() }, rules);
            life.see(last, None, late(), rules);
            if life.is_capturing() {
                let captured = self.answers.with(printed("the end\n", life));
                life.captured(captured, late(), rules);
            }
            life.lose(Some(&*last), late(), rules);
            life.lose(None, late(), rules);
        }
    }
}

fn printed(text: &str, life: &Life) -> Captured {
    let mut reader = Reader::new(Report::Auto, 1024);
    reader.push(text.as_bytes());
    let message = life.told.as_ref().and_then(|t| t.verdict.as_ref()?.termination_message.as_deref());
    reader.finish(message).captured(1024, 4096, None, text.len() as u64)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let doings = [
        r#"{"do":"wait","seconds":120}"#,
        r#"{"do":"tick"}"#,
        r#"{"do":"captured","text":"hello\n{\"exit_code\":0,\"stdout\":\"out\"}\n"}"#,
        r#"{"do":"left"}"#,
        r#"{"do":"missing"}"#,
        r#"{"do":"settle"}"#,
    ];
    let mut seeds = Vec::new();
    for (n, recording) in recordings::all().into_iter().enumerate() {
        let lines: Vec<&str> = recording.lines().collect();
        let doing = doings[n % doings.len()];
        let middle = lines.len() / 2;
        // Once as it was, once with something in the middle of it, without which its last line may be all there is.
        seeds.push(lines.join("\n").into_bytes());
        let asked = evidence::seed(n);
        let disturbed = [&[&*asked], &lines[..middle], &[doing, doings[1]], &lines[middle..]].concat();
        seeds.push(disturbed.join("\n").into_bytes());
        seeds.push(lines[lines.len() - 1].as_bytes().to_vec());
    }
    seeds
}
