//! Each refusal with its place, and what the page of documentation shows.

use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> Result<UserRules, String> {
    parse(Path::new("r.yaml"), text).map_err(|error| error.to_string())
}

/// The file with one rule whose keys are these lines.
fn one(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("rules:\n  - name: a\n{lines}")
}

#[test]
fn each_refusal_names_line_and_mend_and_shows_the_place() {
    let says = "hint: h\n";
    let two = |first: &str, second: &str| {
        format!("rules:\n- {{name: a, hint: h, match: {first}}}\n- {{name: b, hint: h, match: {second}}}\n")
    };
    #[rustfmt::skip]
    let cases = [
        ("".to_owned(), 1, "", "takes 'key: value', with the keys rules"),
        ("rule: []\n".to_owned(), 1, "rule: []", "the file: rule is not a key: did you mean rules?"),
        ("rules: []\n".to_owned(), 1, "[]", "rules: is empty"),
        ("rules: {a: b}\n".to_owned(), 1, "{a: b}", "rules: takes a list"),
        ("rules: [x]\n".to_owned(), 1, "x]", "rules[0]: takes 'key: value'"),
        ("rules:\n- name: a\n  name: b\n".to_owned(), 3, "name: b", "name: stands twice"),
        ("rules:\n- name: 'a\n".to_owned(), 3, "", "quoted scalar"),
        (one("hint: h"), 2, "name: a", "rules[0]: match is missing: say which failures"),
        (one("match: any"), 2, "name: a", "rules[0]: says nothing: give it at least one of"),
        (one("match: any\nretryable: yes please"), 4, "yes please", "retryable: write true or false"),
        (one("match: any\ncause: Bad Luck"), 4, "Bad Luck", "cause: write lower-case letters"),
        (one("match: any\ncause: 7a"), 4, "7a", "beginning with a letter"),
        (one("match: any\ncategory: ''"), 4, "''", "category: is empty"),
        (one("match: any\nhint: [a]"), 4, "[a]", "hint: takes one value"),
        (one("match: any\nhint: \"a\\tb\""), 4, "\"a", "hint: has to stand on one line"),
        (one(&format!("{says}match: all")), 4, "all", "match: takes 'key: value'"),
        (one(&format!("{says}match: {{}}")), 4, "{}", "match: asks for nothing"),
        (one(&format!("{says}match:")), 4, "", "match: asks for nothing"),
        (one(&format!("{says}match:\n  exit-code: [1]")), 5, "exit-code", "match: exit-code is not a key: did you mean exit-codes?"),
        (one(&format!("{says}match:\n  exit-codes: []")), 5, "[]", "match.exit-codes: is empty"),
        (one(&format!("{says}match:\n  exit-codes: [1, x]")), 5, "x]", "match.exit-codes[1]: 'x' is no exit code"),
        (one(&format!("{says}match:\n  exit-codes: 9-1")), 5, "9-1", "is an empty range: write 1-9"),
        (one(&format!("{says}match: {{exit-codes: [3, 0], reason: x}}")), 4, "0]", "exit-codes[1]: 0 of the main container is no failure"),
        (one(&format!("{says}match:\n  exit-codes: 0-0")), 5, "0-0", "match.exit-codes: 0 of the main container"),
        (one(&format!("{says}match:\n  exit-codes: 3221225786")), 5, "3221225786", "is -1073741510 for Kubernetes: write that"),
        (one(&format!("{says}match:\n  exit-codes: [1-3000000000]")), 5, "1-3", "is no exit code: write for instance"),
        (one(&format!("{says}match:\n  exit-codes: 99999999999")), 5, "999", "is no exit code: write for instance"),
        (one(&format!("{says}match:\n  cause: oom")), 5, "oom", "'oom' is not one of exit_code, signal,"),
        (one(&format!("{says}match:\n  cause: [oom_killed, gated]")), 5, "gated", "cause[1]: 'gated' is only ever the cause of a stall"),
        (one(&format!("{says}match:\n  container: A_b")), 5, "A_b", "match.container: "),
        (one(&format!("{says}match:\n  message: '(a'")), 5, "'(a'", "match.message: is no regular expression: unclosed group"),
        (one(&format!("{says}match:\n  message: '.*'")), 5, "'.*'", "is found in every text"),
        (one(&format!("{says}match:\n  condition: {{reason: x}}")), 5, "{reason", "condition: type is missing"),
        (one(&format!("{says}match:\n  condition: {{type: x, status: maybe}}")), 5, "maybe", "write True, False or Unknown"),
        (one(&format!("{says}match:\n  event: {{}}")), 5, "{}", "event: asks for nothing: give it at least one of reason, message"),
        (one(&format!("{says}match:\n  event: {{type: x}}")), 5, "type", "event: type is not a key"),
        (two("any", "{exit-codes: 3}"), 3, "{exit-codes: 3}", "rule b is never asked: rule a on line 2 matches everything"),
        (two("{exit-codes: [1-9]}", "{exit-codes: [2, 4-5], reason: Error}"), 3, "{exit-codes", "never asked"),
        (two("{reason: a}", "{reason: a}").replace("name: b", "name: a"), 3, "a, hint", "a is the name of the rule on line 2"),
    ];
    let mut wrong = Vec::new();
    for (text, line, at, expected) in cases {
        let said = parsed(&text).expect_err(&text);
        let named = said.starts_with(&format!("r.yaml:{line}: ")) && said.contains(expected);
        let shown: Vec<&str> = said.lines().collect();
        let [.., source, caret] = shown.as_slice() else { panic!("{said}") };
        let shown = caret.trim() == "^" && source.get(caret.len() - 1..).is_some_and(|rest| rest.starts_with(at));
        if !named || !shown {
            wrong.push(format!("{text}{expected}\n{said}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn exit_codes_are_those_that_kubernetes_can_show() {
    for codes in ["1", "255", "300", "2147483647", "-1073741510", "-2147483648--1", "0-5"] {
        let read = parsed(&one(&format!("hint: h\nmatch:\n  exit-codes: {codes}")));
        assert!(read.is_ok(), "{codes}: {read:?}");
    }
    let other = parsed(&one("hint: h\nmatch: {exit-codes: 0, container: proxy}"));
    assert!(other.is_ok(), "another container may end well while the main one fails: {other:?}");
}

#[test]
fn limits_are_told() {
    let rules = |count: usize, asks: fn(usize) -> String| -> String {
        (0..count).map(|n| format!("- {{name: r{n}, hint: h, match: {{{}}}}}\n", asks(n))).collect()
    };
    let many = rules(RULES_MAX + 1, |n| format!("reason: x{n}"));
    assert!(parsed(&format!("rules:\n{many}")).unwrap_err().contains("more than 128 rules"));
    let events = rules(EVENT_RULES_MAX + 1, |n| format!("event: {{reason: x{n}}}"));
    let said = parsed(&format!("rules:\n{events}")).unwrap_err();
    assert!(said.contains("more than 16 rules ask for an event"), "{said}");
    let list: Vec<String> = (0..=LIST_MAX).map(|n| n.to_string()).collect();
    let said = parsed(&one(&format!("hint: h\nmatch:\n  exit-codes: [{}]", list.join(", ")))).unwrap_err();
    assert!(said.contains("more than 64 values"), "{said}");
    assert!(parsed(&format!("rules: {}", "[".repeat(100_000))).is_err());
    assert!(parsed(&"#".repeat(300 << 10)).unwrap_err().contains("larger than"));
}

#[test]
fn layout_and_comments_do_not_change_the_hash_and_meaning_does() {
    let hash = |text: &str| parsed(text).unwrap().hash().unwrap().to_owned();
    let plain = hash("rules:\n- name: a\n  match: {exit-codes: 42, reason: Error}\n  hint: h\n");
    assert_eq!(plain, hash("# why\nrules: [{hint: 'h', match: {reason: [Error], exit-codes: [42-42]}, name: a}]\n"));
    assert_ne!(plain, hash("rules:\n- name: a\n  match: {exit-codes: 43, reason: Error}\n  hint: h\n"));
}

#[test]
fn a_caret_stands_right_in_long_lines_and_nothing_steers_the_terminal() {
    let long = format!("rules: [{{name: a, hint: '{}', match: {{x\u{e4}: 1}}}}]\n", "\u{e4}".repeat(200));
    let said = parsed(&long).unwrap_err();
    let lines: Vec<&str> = said.lines().collect();
    let caret = lines[2].chars().count() - 1;
    assert_eq!(lines[1].chars().skip(caret).take(2).collect::<String>(), "x\u{e4}", "{said}");
    let said = parsed("rules:\n- name: \"\\e[2J\"\n  x: \t1\n").unwrap_err();
    assert!(!said.contains('\u{1b}') && !said.contains('\t'), "{said:?}");
}

#[test]
fn every_example_of_the_page_is_read() {
    let page = include_str!("../../docs/rules.md");
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let rules: Vec<&&str> = blocks.iter().filter(|block| block.starts_with("rules:")).collect();
    assert!(rules.len() >= 4, "{} examples: the search is broken", rules.len());
    for cause in Cause::ALL {
        assert!(page.contains(&format!("`{}`", cause.as_str())), "{}", cause.as_str());
    }
    for block in rules {
        let rules = parsed(block).unwrap_or_else(|error| panic!("{error}\n{block}"));
        assert!(!rules.is_empty() && rules.hash().is_some());
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_it(bytes: Vec<u8>, near in r#"(rules|name|match|any|[-:{}\[\]'"|>&*!,#a-c0-9 \t\r\n\\]){0,40}"#) {
        drop(parsed(&String::from_utf8_lossy(&bytes)));
        drop(parsed(&near));
        drop(parsed(&one(&format!("hint: h\nmatch:\n  {near}"))));
        drop(parsed(&one(&format!("hint: h\nmatch:\n  message: {near}\n  exit-codes: {near}"))));
    }
}
