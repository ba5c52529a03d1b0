//! Series in the text of `/metrics`.

/// The sum of all series with this name and at least these labels (`name` or `name{label="value",...}`, in any order);
/// `None` if there is none.
pub(super) fn sum(text: &str, series: &str) -> Option<f64> {
    let (name, wanted) = parts(series);
    let values = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (found, value) = line.rsplit_once(' ')?;
        let (found, labels) = parts(found);
        let fits = found == name && wanted.iter().all(|label| labels.contains(label));
        fits.then(|| value.parse::<f64>().ok()).flatten()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// Name and labels. Our label values hold no commas.
fn parts(series: &str) -> (&str, Vec<&str>) {
    let Some((name, labels)) = series.split_once('{') else { return (series, Vec::new()) };
    (name, labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total of things
# TYPE a counter
a_total{shard=\"0\",kind=\"x\"} 1
a_total{shard=\"1\",kind=\"x\"} 2
a_total{shard=\"1\",kind=\"y\"} 4
a_total{shard=\"11\",kind=\"y\"} 8
a 16
b_sum{shard=\"0\"} 0.5
b_sum{shard=\"1\"} 0.25
# EOF
";

    #[test]
    fn series_are_summed_over_the_labels_that_are_left_out() {
        let cases = [
            ("a", Some(16.0)),
            ("a_total", Some(15.0)),
            ("a_total{kind=\"x\"}", Some(3.0)),
            ("a_total{shard=\"1\"}", Some(6.0)),
            ("a_total{kind=\"y\",shard=\"1\"}", Some(4.0)),
            ("a_total{kind=\"z\"}", None),
            ("a_tot", None),
            ("b_sum", Some(0.75)),
            ("b", None),
        ];
        for (series, expected) in cases {
            assert_eq!(sum(TEXT, series), expected, "{series}");
        }
    }
}
