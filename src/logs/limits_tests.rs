//! Laws of the keeper and of the cut.

use proptest::prelude::*;

use super::*;

fn keep(cap: usize, chunks: &[&[u8]]) -> Keeper {
    let mut keeper = Keeper::new(cap);
    chunks.iter().for_each(|chunk| keeper.push(chunk));
    keeper
}

fn fit_bytes(bytes: &[u8], cap: usize, text_max: usize, encoded_max: usize) -> Fitted {
    fit(&keep(cap, &[bytes]).finish(), text_max, encoded_max)
}

/// Splits a cut text at its mark: (prefix, bytes cut, suffix). Tries every place, since output may contain marks.
fn is_cut_of(text: &str, raw: &[u8]) -> bool {
    let original = String::from_utf8_lossy(raw);
    if text.is_empty() {
        return true;
    }
    text.match_indices("\n[... ").any(|(at, opening)| {
        let Some((number, suffix)) = text[at + opening.len()..].split_once(" bytes cut ...]\n") else {
            return false;
        };
        let (prefix, Ok(cut)) = (&text[..at], number.parse::<u64>()) else { return false };
        original.starts_with(prefix)
            && original.ends_with(suffix)
            && prefix.len() + suffix.len() <= original.len()
            && cut <= raw.len() as u64
            // Exact wherever a byte of the text is a byte of the stream.
            && (std::str::from_utf8(raw).is_err() || cut as usize == raw.len() - prefix.len() - suffix.len())
    })
}

#[test]
fn short_output_is_kept_as_it_is() {
    for text in ["", "a", "hello\n", "nul \0 and \u{1b}[31m", "äöü 💩"] {
        let fitted = fit_bytes(text.as_bytes(), 64, 64, usize::MAX);
        assert_eq!((fitted.text.as_str(), fitted.cut), (text, false));
    }
}

#[test]
fn the_middle_is_cut_marked_and_counted() {
    let bytes: Vec<u8> = (0..1000u32).map(|i| b'a' + (i % 26) as u8).collect();
    let fitted = fit_bytes(&bytes, 100, 100, usize::MAX);
    let text = std::str::from_utf8(&bytes).expect("ascii");
    assert!(fitted.cut && fitted.text.len() <= 100 && fitted.text.len() > 95, "{}", fitted.text.len());
    let (prefix, rest) = fitted.text.split_once("\n[... ").expect("opening of the mark");
    let (number, suffix) = rest.split_once(" bytes cut ...]\n").expect("end of the mark");
    assert!(text.starts_with(prefix) && text.ends_with(suffix));
    assert_eq!(number.parse::<usize>().expect("a number"), 1000 - prefix.len() - suffix.len());
    assert!(prefix.len().abs_diff(suffix.len()) <= 2, "head and tail are fair");
}

#[test]
fn invalid_bytes_are_counted_as_they_came() {
    let fitted = fit_bytes(&[0xff; 1000], 200, 200, usize::MAX);
    let shown = fitted.text.chars().filter(|c| *c == char::REPLACEMENT_CHARACTER).count();
    assert!(fitted.text.contains(&format!("[... {} bytes cut ...]", 1000 - shown)), "{}", fitted.text);
    assert!(fitted.text.len() <= 200 && shown > 40);
}

#[test]
fn no_character_is_torn() {
    let text = "💩ä€".repeat(100);
    for cap in 40..140 {
        let fitted = fit_bytes(text.as_bytes(), cap, cap, usize::MAX);
        assert!(!fitted.text.contains(char::REPLACEMENT_CHARACTER), "{cap}");
        assert!(fitted.text.len() <= cap && is_cut_of(&fitted.text, text.as_bytes()), "{cap}");
        // With room for all that was kept, the tears of the keeper itself would show.
        let fitted = fit_bytes(text.as_bytes(), cap, 1000, usize::MAX);
        assert!(!fitted.text.contains(char::REPLACEMENT_CHARACTER), "{cap}");
        assert!(is_cut_of(&fitted.text, text.as_bytes()), "{cap}");
    }
}

#[test]
fn a_hundred_megabytes_stay_within_the_cap() {
    let cap = 262_144;
    let mut keeper = Keeper::new(cap);
    let chunk = [b'x'; 65_537];
    while keeper.total() < 100 << 20 {
        keeper.push(&chunk);
        assert!(keeper.capacity() <= cap, "{}", keeper.capacity());
    }
    let total = keeper.total();
    let kept = keeper.finish();
    assert_eq!(kept.total(), total);
    assert!(fit(&kept, cap, usize::MAX).text.len() <= cap);
}

#[test]
fn standard_error_keeps_its_half() {
    let (out, err) = (keep(10_000, &[&[b'o'; 9000]]).finish(), keep(10_000, &[&[b'e'; 9000]]).finish());
    let (fitted_out, fitted_err) = fit_both(Some(&out), Some(&err), 10_000, 4000);
    let (fitted_out, fitted_err) = (fitted_out.expect("stdout"), fitted_err.expect("stderr"));
    assert!((1990..=2000).contains(&fitted_err.encoded_bytes), "{}", fitted_err.encoded_bytes);
    assert!((1990..=2010).contains(&fitted_out.encoded_bytes), "{}", fitted_out.encoded_bytes);

    let small = keep(10_000, &[b"why"]).finish();
    let (fitted_out, fitted_err) = fit_both(Some(&out), Some(&small), 10_000, 4000);
    assert_eq!(fitted_err.expect("stderr").text, "why");
    assert!(fitted_out.expect("stdout").encoded_bytes > 3980, "stdout takes what stderr leaves");
    let (fitted_out, fitted_err) = fit_both(Some(&small), Some(&err), 10_000, 4000);
    assert_eq!(fitted_out.expect("stdout").text, "why");
    assert!(fitted_err.expect("stderr").encoded_bytes > 3980, "stderr takes what stdout leaves");
}

#[test]
fn control_characters_are_counted_as_json_writes_them() {
    let every: String = (0..=0x2fff_u32).filter_map(char::from_u32).collect();
    assert_eq!(encoded_len(&every), serde_json::to_string(&every).expect("strings encode").len());
    for c in every.chars() {
        assert_eq!(encoded_char_len(c) + 2, encoded_len(&c.to_string()), "{c:?}");
    }
}

/// Bytes that are mostly nasty: controls, torn and invalid UTF-8, text like the mark's.
fn nasty() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..12),
        "[a-z]{0,20}".prop_map(String::into_bytes),
        "\\PC{0,8}".prop_map(String::into_bytes),
        Just(vec![0; 7]),
        Just("💩€".as_bytes().to_vec()),
        Just(b"\n[... 3 bytes cut ...]\n".to_vec()),
        Just(vec![0x80; 5]),
        Just(vec![0xf0, 0x9f]),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn neither_limit_is_ever_exceeded(
        out in nasty(), err in nasty(), kept_max in 0_usize..400, cap in 0_usize..400, encoded_max in 4_usize..600
    ) {
        let (out_kept, err_kept) = (keep(kept_max, &[&out]).finish(), keep(kept_max, &[&err]).finish());
        let (fitted_out, fitted_err) = fit_both(Some(&out_kept), Some(&err_kept), cap, encoded_max);
        let (fitted_out, fitted_err) = (fitted_out.expect("given"), fitted_err.expect("given"));
        let encoded = |text: &str| serde_json::to_string(text).expect("strings encode").len();
        prop_assert!(encoded(&fitted_out.text) + encoded(&fitted_err.text) <= encoded_max);
        for (fitted, raw) in [(fitted_out, out), (fitted_err, err)] {
            prop_assert!(fitted.text.len() <= cap);
            prop_assert_eq!(fitted.encoded_bytes, encoded(&fitted.text));
            if fitted.cut {
                prop_assert!(is_cut_of(&fitted.text, &raw), "{:?}", fitted.text);
            } else {
                prop_assert_eq!(fitted.text, String::from_utf8_lossy(&raw).into_owned());
            }
        }
    }

    #[test]
    fn chunks_do_not_matter_to_the_keeper(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20), cap in 0_usize..120
    ) {
        let whole = chunks.concat();
        let mut keeper = Keeper::new(cap);
        for chunk in &chunks {
            keeper.push(chunk);
            prop_assert!(keeper.capacity() <= cap);
        }
        let (chunked, at_once) = (keeper.finish(), keep(cap, &[&whole]).finish());
        prop_assert_eq!(&chunked.head, &at_once.head);
        prop_assert_eq!(&chunked.tail, &at_once.tail);
        prop_assert!(whole.starts_with(&chunked.head) && whole.ends_with(&chunked.tail));
        prop_assert_eq!(chunked.total, whole.len() as u64);
        prop_assert_eq!(chunked.head.len() + chunked.tail.len(), whole.len().min(cap));
    }
}
