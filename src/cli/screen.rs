//! How commands speak to people: colours where they are wanted, and nothing that steers the terminal.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};

use crate::config::Variables;

/// When output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorKind {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The flag of all commands that colour what they say.
#[derive(Args)]
pub struct ScreenArgs {
    /// Whether it is coloured; auto: on a terminal, unless the variable NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: ColorKind,
}

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(bool);

/// What something is said in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// All is well.
    Green,
    /// Something is wrong.
    Red,
    /// Somebody should look.
    Yellow,
    /// Under way.
    Cyan,
    /// Less important.
    Dim,
    /// Heads of tables.
    Bold,
}

impl Ink {
    /// SGR parameter of ECMA-48.
    fn code(self) -> u8 {
        match self {
            Self::Bold => 1,
            Self::Dim => 2,
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Cyan => 36,
        }
    }
}

impl Paint {
    /// As the flag and the environment say. `terminal`: whether standard output is one.
    pub fn of(args: &ScreenArgs, variables: Variables<'_>, terminal: bool) -> Self {
        // https://no-color.org: set, and not empty.
        let refused = variables("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = variables("TERM").is_some_and(|value| value == "dumb");
        Self(match args.color {
            ColorKind::Auto => terminal && !refused && !dumb,
            ColorKind::Always => true,
            ColorKind::Never => false,
        })
    }

    /// No colours.
    pub const fn none() -> Self {
        Self(false)
    }

    /// The text in this ink. It must be plain.
    pub fn with(self, ink: Ink, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{}m{text}\x1b[0m", ink.code()) } else { text.to_owned() }
    }
}

/// Whether a character may move the cursor, change colours or the order in which others are read.
pub fn is_steering(c: char) -> bool {
    // Controls, line and paragraph separators, marks that turn the direction of writing, the byte order mark.
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}' | '\u{feff}')
}

/// What others wrote, so that nothing of it reaches the terminal raw.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_steering(c) { ' ' } else { c }).collect()
}

/// JSON that says the same, with steering characters escaped: they can only stand in its strings.
pub fn plain_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_steering(c) {
            // All of them are in the first plane. Writing to a String cannot fail.
            let _infallible = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}

/// A table with its columns as wide as what stands in them; the last one is not filled up. Cells are plain text, each with
/// its ink.
pub fn table(paint: Paint, heads: &[&str], rows: &[Vec<(String, Option<Ink>)>]) -> String {
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(n, head)| {
            let cells = rows.iter().filter_map(|row| row.get(n)).map(|(cell, _)| cell.chars().count());
            cells.chain([head.chars().count()]).max().unwrap_or_default()
        })
        .collect();
    let head: Vec<_> = heads.iter().map(|head| ((*head).to_owned(), Some(Ink::Bold))).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        for (n, (cell, ink)) in row.iter().enumerate() {
            text.push_str(&ink.map_or_else(|| cell.clone(), |ink| paint.with(ink, cell)));
            if n + 1 < row.len() {
                let gap = widths.get(n).copied().unwrap_or_default().saturating_sub(cell.chars().count()) + 2;
                text.push_str(&" ".repeat(gap));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn paint(color: ColorKind, set: &[(&str, &str)], terminal: bool) -> Paint {
        let variables =
            |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        Paint::of(&ScreenArgs { color }, &variables, terminal)
    }

    #[test]
    fn colours_are_for_terminals_and_for_who_wants_them() {
        let cases = [
            (ColorKind::Auto, &[][..], true, true),
            (ColorKind::Auto, &[], false, false),
            (ColorKind::Auto, &[("NO_COLOR", "1")], true, false),
            (ColorKind::Auto, &[("NO_COLOR", "")], true, true),
            (ColorKind::Auto, &[("TERM", "dumb")], true, false),
            (ColorKind::Always, &[("NO_COLOR", "1")], false, true),
            (ColorKind::Never, &[], true, false),
        ];
        for (color, set, terminal, expected) in cases {
            assert_eq!(paint(color, set, terminal), Paint(expected), "{color:?} {set:?} {terminal}");
        }
        assert_eq!(Paint(true).with(Ink::Red, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Paint(false).with(Ink::Red, "x"), "x");
    }

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        let wild = "a\x1b[2J\u{9b}31m\u{202e}b\r\n\u{7f}\u{2066}ü";
        assert_eq!(plain(wild), "a [2J 31m b    ü");
        let json = serde_json::to_string(wild).expect("a string");
        let escaped = plain_json(&json);
        assert!(!escaped.chars().any(is_steering), "{escaped:?}");
        assert_eq!(serde_json::from_str::<String>(&escaped).expect("the same string"), wild);
    }

    #[test]
    fn columns_of_a_table_stand_below_one_another() {
        let row = |a: &str, b: &str| vec![(a.to_owned(), None), (b.to_owned(), Some(Ink::Green))];
        let text = table(Paint::none(), &["A", "HOLDER"], &[row("0", "x"), row("100", "y")]);
        assert_eq!(text, "A    HOLDER\n0    x\n100  y\n");
        let coloured = table(Paint(true), &["A", "HOLDER"], &[row("0", "x")]);
        assert_eq!(coloured, "\x1b[1mA\x1b[0m  \x1b[1mHOLDER\x1b[0m\n0  \x1b[32mx\x1b[0m\n");
    }
}
