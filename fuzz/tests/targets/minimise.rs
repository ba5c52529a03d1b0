//! Makes an input that breaks a promise smaller, as long as it breaks the same one: without lines, without values of lines of
//! JSON, without bytes. libFuzzer's own way knows nothing of values.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Mutex,
};

use serde_json::Value;

use super::Target;

/// Where the last panic was: file, line.
static WHERE: Mutex<Option<(String, u32)>> = Mutex::new(None);

/// Runs of the target at most.
const RUNS_MAX: u32 = 6000;

struct Search {
    target: Target,
    place: Option<(String, u32)>,
    runs_left: u32,
}

/// The smallest input that was found; the same one where it breaks nothing. Takes the panic hook over.
pub(crate) fn minimise(target: Target, input: &[u8]) -> Vec<u8> {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(|location| (location.file().to_owned(), location.line()));
        *WHERE.lock().unwrap() = place;
    }));
    let mut search = Search { target, place: None, runs_left: RUNS_MAX };
    search.place = search.breaks_at(input);
    let mut best = input.to_vec();
    if search.place.is_none() {
        return best;
    }
    loop {
        let before = best.len();
        search.without_parts(&mut best, b"\n");
        search.without_values(&mut best);
        if best.len() < 2048 {
            search.without_parts(&mut best, b"");
        }
        if best.len() == before || search.runs_left == 0 {
            return best;
        }
    }
}

impl Search {
    fn breaks_at(&mut self, input: &[u8]) -> Option<(String, u32)> {
        self.runs_left = self.runs_left.saturating_sub(1);
        let target = self.target;
        panic::catch_unwind(AssertUnwindSafe(|| target.run(input))).err()?;
        WHERE.lock().unwrap().clone()
    }

    fn still(&mut self, input: &[u8]) -> bool {
        self.runs_left > 0 && self.breaks_at(input) == self.place
    }

    /// Leaves out half of the parts, a quarter, down to one.
    fn without_parts(&mut self, best: &mut Vec<u8>, border: &[u8]) {
        let split = |bytes: &[u8]| -> Vec<Vec<u8>> {
            match border {
                [] => bytes.iter().map(|byte| vec![*byte]).collect(),
                border => bytes.split(|byte| [*byte] == border[..1]).map(<[u8]>::to_vec).collect(),
            }
        };
        let mut parts = split(best);
        let mut width = parts.len().div_ceil(2);
        while width > 0 {
            let mut at = 0;
            while at < parts.len() {
                let end = (at + width).min(parts.len());
                let shorter = [&parts[..at], &parts[end..]].concat();
                if self.still(&shorter.join(border)) {
                    parts = shorter;
                } else {
                    at = end;
                }
            }
            width /= 2;
        }
        *best = parts.join(border);
    }

    fn without_values(&mut self, best: &mut Vec<u8>) {
        let Ok(text) = String::from_utf8(best.clone()) else { return };
        let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
        for n in 0..lines.len() {
            let Ok(mut value) = serde_json::from_str::<Value>(&lines[n]) else { continue };
            let mut number = 0;
            while let Some(smaller) = without(&value, number) {
                let mut tried = lines.clone();
                tried[n] = smaller.to_string();
                if tried[n].len() < lines[n].len() && self.still(tried.join("\n").as_bytes()) {
                    (lines, value) = (tried, smaller);
                } else {
                    number += 1;
                }
            }
        }
        *best = lines.join("\n").into_bytes();
    }
}

/// The value with one thing less, of all that could be left out; `None` where there are no more.
fn without(value: &Value, number: usize) -> Option<Value> {
    let mut smaller = value.clone();
    let mut left = number;
    leave_out(&mut smaller, &mut left).then_some(smaller)
}

fn leave_out(value: &mut Value, left: &mut usize) -> bool {
    match value {
        Value::Object(fields) => {
            if *left < fields.len() {
                let key = fields.keys().nth(*left).cloned().unwrap_or_default();
                fields.remove(&key);
                return true;
            }
            *left -= fields.len();
            fields.values_mut().any(|field| leave_out(field, left))
        }
        Value::Array(items) => {
            if *left < items.len() {
                items.remove(*left);
                return true;
            }
            *left -= items.len();
            items.iter_mut().any(|item| leave_out(item, left))
        }
        Value::String(text) if !text.is_empty() => {
            if *left == 0 {
                // Half of it, so that a limit is still met.
                text.truncate(text.floor_char_boundary(text.len() / 2));
                return true;
            }
            *left -= 1;
            false
        }
        _ => false,
    }
}
