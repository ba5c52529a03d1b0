//! Mutation by value: of an input that holds lines of JSON, one value is changed, so that most of it stays what it was.
//!
//! libFuzzer mutates bytes, which nearly always breaks a pod of 4 kB in the same way: it is no JSON any more.

use std::sync::LazyLock;

use serde_json::{Number, Value, json};

/// Longest text that is put in, in bytes: above every limit that the code has for one text.
const LONG: usize = 8 << 10;

/// The words of fuzz/kubernetes.dict that are text.
static WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let quoted = include_str!("../../kubernetes.dict").lines().filter(|line| line.starts_with('"'));
    let plain = quoted.filter(|line| !line.contains('\\'));
    plain.map(|line| line.trim_matches('"').to_owned()).collect()
});

/// Deterministic numbers: splitmix64.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u32) -> Self {
        Self(u64::from(seed) << 17 | 1)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `sides`, which may not be 0.
    fn below(&mut self, sides: usize) -> usize {
        usize::try_from(self.roll() % sides as u64).unwrap_or_default()
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Changes one line or one value of one line; `None` where no line is JSON, or the result has no room.
pub(crate) fn values(data: &[u8], bytes_max: usize, seed: u32) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(data).ok()?;
    let mut dice = Dice::new(seed);
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let of_json = |(n, line): (usize, &String)| line.starts_with(['{', '[']).then_some(n);
    let json: Vec<usize> = lines.iter().enumerate().filter_map(of_json).collect();
    if json.is_empty() {
        return None;
    }
    let n = *dice.one(&json);
    match dice.below(12) {
        0 => lines.insert(n, lines[n].clone()),
        1 if lines.len() > 1 => drop(lines.remove(n)),
        2 => lines.swap(n, *dice.one(&json)),
        3 => lines.insert(n, doing(&mut dice)),
        _ => {
            let mut value: Value = serde_json::from_str(&lines[n]).ok()?;
            let other: Value = serde_json::from_str(&lines[*dice.one(&json)]).ok()?;
            for _ in 0..=dice.below(3) {
                change(&mut value, &other, &mut dice);
            }
            lines[n] = value.to_string();
        }
    }
    let mutated = lines.join("\n").into_bytes();
    (mutated.len() <= bytes_max).then_some(mutated)
}

fn doing(dice: &mut Dice) -> String {
    let seconds = *dice.one(&[1, 11, 61, 301, 100_000]);
    let text = *dice.one(&["", "hello\n", "{\"exit_code\":0}", "STDOUT 2\nhiSTDERR 1\nx", "\u{0}\u{1b}💩"]);
    let doings = [
        json!({ "do": "wait", "seconds": seconds }),
        json!({ "do": "tick" }),
        json!({ "do": "left" }),
        json!({ "do": "missing" }),
        json!({ "do": "settle" }),
        json!({ "do": "captured", "text": text }),
    ];
    dice.one(&doings).to_string()
}

fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.values().map(size).sum::<usize>(),
        _ => 0,
    }
}

/// The value with this number, counted from the root downwards.
fn nth<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, left)),
        Value::Object(fields) => fields.values_mut().find_map(|field| nth(field, left)),
        _ => None,
    }
}

fn change(value: &mut Value, other: &Value, dice: &mut Dice) {
    let mut number = dice.below(size(value));
    let Some(chosen) = nth(value, &mut number) else { return };
    match chosen {
        Value::Array(items) if !items.is_empty() && dice.below(2) == 0 => list(items, dice),
        Value::Object(fields) if !fields.is_empty() && dice.below(3) > 0 => {
            let key = fields.keys().nth(dice.below(fields.len())).cloned().unwrap_or_default();
            match dice.below(3) {
                0 => drop(fields.remove(&key)),
                1 => {
                    let moved = fields.remove(&key).unwrap_or_default();
                    fields.insert(dice.one(&WORDS).clone(), moved);
                }
                _ => drop(fields.insert(dice.one(&WORDS).clone(), leaf(dice))),
            }
        }
        Value::String(text) if dice.below(2) == 0 => edit(text, dice),
        Value::Number(number) if dice.below(4) > 0 => {
            let by = *dice.one(&[-1, 1, 2, 127, 255, 1000]);
            let near = number.as_i64().unwrap_or_default().saturating_add(by);
            let far = [0, i64::from(i32::MAX), i64::from(u32::MAX), i64::MAX, i64::MIN];
            *number = match dice.below(3) {
                0 => near.into(),
                1 => Number::from(*dice.one(&far)),
                _ => u64::MAX.into(),
            };
        }
        _ if dice.below(4) == 0 => {
            let mut number = dice.below(size(other));
            if let Some(found) = nth(&mut other.clone(), &mut number) {
                *chosen = found.take();
            }
        }
        _ => *chosen = leaf(dice),
    }
}

fn list(items: &mut Vec<Value>, dice: &mut Dice) {
    let (one, other) = (dice.below(items.len()), dice.below(items.len()));
    match dice.below(4) {
        0 => drop(items.remove(one)),
        1 => items.swap(one, other),
        2 => items.insert(one, items[other].clone()),
        // More than anybody has.
        _ => items.extend(std::iter::repeat_n(items[one].clone(), 40)),
    }
}

fn edit(text: &mut String, dice: &mut Dice) {
    let at = text.floor_char_boundary(dice.below(text.len() + 1));
    match dice.below(8) {
        0 => text.truncate(at),
        1 => text.insert_str(at, dice.one::<String>(&WORDS)),
        2 => text.insert(at, *dice.one(&['\u{0}', '"', '\u{1b}', 'ä', '💩', '/', ' ', '-', '.'])),
        3..6 => text.insert_str(at, &dice.one(&["a", "ä", "\u{0}", "💩"]).repeat(LONG / 4)),
        // The next second, or the one before.
        6 => match text.parse::<jiff::Timestamp>() {
            Ok(time) => {
                let by = jiff::SignedDuration::from_secs(*dice.one(&[-1, 1, -61, 61, 86_400, 1 << 37]));
                *text = time.checked_add(by).unwrap_or(time).to_string();
            }
            Err(_) => text.clear(),
        },
        _ => *text = dice.one(&WORDS).clone(),
    }
}

fn leaf(dice: &mut Dice) -> Value {
    let numbers = [0, 1, -1, 137, i64::from(i32::MAX), i64::from(i32::MIN), i64::from(u32::MAX), i64::MAX, i64::MIN];
    match dice.below(9) {
        0 => Value::Null,
        1 => Value::Bool(dice.below(2) == 0),
        2 => Value::from(*dice.one(&numbers)),
        3 => Number::from_f64(*dice.one(&[0.5, -0.0, 1e300, 1e-300])).map(Value::Number).unwrap_or_default(),
        4 => Value::from(u64::MAX),
        5 => Value::String(dice.one(&WORDS).clone()),
        6 => Value::String(String::new()),
        7 => json!([]),
        _ => json!({}),
    }
}
