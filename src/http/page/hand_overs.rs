//! The last changes of hands: how long nobody could tell anything, and where that time went, drawn.

use super::{escape, time, took, write};
use crate::{
    http::status::{HandOver, Measured, ShardStatus, Status},
    telemetry::metrics::Role,
};

/// Hand-overs that are drawn: the newest of all shards.
const DRAWN_MAX: usize = 8;
/// Units of a drawing's width.
const WIDTH: f64 = 1000.0;

/// Legs by the names that the status gives them, and for people. Their places in this list are their colours.
const LEGS: [(&str, &str); 7] = [
    ("acquired", "lease"),
    ("fenced", "fence"),
    ("barrier", "barrier"),
    ("restored", "restore"),
    ("watching", "watch"),
    ("reconciled", "compare"),
    ("first_commit", "first commit"),
];

pub(super) fn section(status: &Status) -> String {
    let mut all: Vec<(&ShardStatus, &HandOver)> = Vec::new();
    for shard in &status.shown.shards {
        all.extend(shard.hand_overs.iter().map(|hand_over| (shard, hand_over)));
    }
    // Newest first; of one moment, by shard.
    all.sort_by_key(|(shard, hand_over)| (std::cmp::Reverse(hand_over.at), shard.shard));
    let mut text = "<h2>Hand-overs</h2>".to_owned();
    if all.is_empty() {
        text.push_str("<p>No shard changed hands since this replica started.</p>");
        return text;
    }
    let left = all.len().saturating_sub(DRAWN_MAX);
    for (shard, hand_over) in all.into_iter().take(DRAWN_MAX) {
        text.push_str(&one(shard, hand_over, status));
    }
    if left > 0 {
        write(&mut text, format_args!("<p>{left} older ones are in <a href=\"api/status\">the JSON</a>.</p>"));
    }
    text
}

fn one(of: &ShardStatus, hand_over: &HandOver, status: &Status) -> String {
    let shard = of.shard;
    let key = hand_over.at.as_millisecond();
    let at = time(hand_over.at, status.at, "age");
    let mut head = format!("{at} shard {shard} to <span class=\"name\">{}</span>", escape(&hand_over.holder));
    let Some(measured) = &hand_over.measured else {
        let what = match hand_over.holder == status.shown.identity {
            true if is_under_way(of, hand_over) => "under way",
            true => "given up before its first commit",
            false => "its legs are on that replica's page",
        };
        return format!("<p id=\"h{shard}-{key}\">{head}: {what}</p>");
    };
    write(&mut head, format_args!(", <b>gap {}</b>, {}", took(measured.gap_ms), why(measured.why)));
    let segments = segments(measured);
    let mut legs = String::new();
    for segment in &segments {
        write(&mut legs, format_args!("<li class=\"l{}\">{} {}</li>", segment.colour, segment.name, took(segment.ms)));
    }
    format!(
        "<details id=\"h{shard}-{key}\"><summary>{head}{}</summary><ol class=\"legs\">{legs}</ol>{}</details>",
        drawing(&segments),
        from(hand_over, measured)
    )
}

/// It is the newest one, and who took the shard over has not let go of it since.
fn is_under_way(shard: &ShardStatus, hand_over: &HandOver) -> bool {
    let newest = shard.hand_overs.front().is_some_and(|newest| newest.at == hand_over.at);
    newest && shard.holder.as_ref() == Some(&hand_over.holder) && shard.role != Role::Standby.as_str()
}

fn from(hand_over: &HandOver, measured: &Measured) -> String {
    let mut text = format!("<p>Term {}", measured.term);
    if let Some(from) = &hand_over.from {
        write(&mut text, format_args!(", from <span class=\"name\">{}</span>", escape(from)));
    }
    text.push_str(". The gap ends at the first commit.</p>");
    text
}

/// Words of ours: docs/handover.md explains them.
fn why(reason: &str) -> &str {
    match reason {
        "released" => "released by the one before",
        "dead" => "the one before died",
        "silent" => "the one before fell silent",
        "absent" => "nobody had it",
        "ours" => "ours already",
        other => other,
    }
}

struct Segment {
    colour: usize,
    name: &'static str,
    ms: f64,
}

/// What passed from one leg to the next, in the order in which they were reached.
fn segments(measured: &Measured) -> Vec<Segment> {
    let mut reached = measured.legs.clone();
    reached.sort_by(|a, b| a.ms.total_cmp(&b.ms));
    let mut segments = vec![Segment { colour: 0, name: "notice", ms: measured.silence_ms }];
    let mut before = 0.0;
    for leg in reached {
        let Some(index) = LEGS.iter().position(|(name, _)| *name == leg.leg) else { continue };
        segments.push(Segment { colour: index + 1, name: LEGS[index].1, ms: (leg.ms - before).max(0.0) });
        before = leg.ms;
    }
    segments
}

/// Each drawing is as wide as what it shows: the numbers beside it compare, the drawing parts.
fn drawing(segments: &[Segment]) -> String {
    let whole: f64 = segments.iter().map(|segment| segment.ms).sum();
    let scale = if whole > 0.0 { WIDTH / whole } else { 0.0 };
    let mut paths = String::new();
    let mut from = 0.0;
    for Segment { colour, ms, .. } in segments {
        let width = ms * scale;
        // A hairline between two parts, where there is room for one.
        let drawn = if width > 6.0 { width - 2.0 } else { width };
        if drawn >= 0.5 {
            write(&mut paths, format_args!("<path class=\"l{colour}\" d=\"M{from:.0} 5h{drawn:.0}\"/>"));
        }
        from += width;
    }
    // Said in words below it.
    format!("<svg viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">{paths}</svg>")
}
