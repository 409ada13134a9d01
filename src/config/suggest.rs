//! What an unknown key was probably meant to be.

/// Keys that stand elsewhere than people expect, or are called otherwise.
const ELSEWHERE: &[(&str, &str)] = &[
    ("min_size", "expect.min_size"),
    ("max_shrink", "expect.max_shrink"),
    ("tables", "expect.tables"),
    ("rows", "expect.rows"),
    ("max_age", "objectives.max_age"),
    ("max_drill_age", "objectives.max_drill_age"),
    ("max_verify_age", "objectives.max_verify_age"),
    ("max_restore_time", "objectives.max_restore_time"),
    ("before", "hooks.before"),
    ("after", "hooks.after"),
    ("on_success", "hooks.on_success"),
    ("on_failure", "hooks.on_failure"),
    ("keep_daily", "keep.daily"),
    ("keep_weekly", "keep.weekly"),
    ("keep_monthly", "keep.monthly"),
    ("keep_yearly", "keep.yearly"),
    ("keep_last", "keep.last"),
    ("repo", "path"),
    ("repository", "path"),
    ("password_file", "password.file"),
    ("password_command", "password.command"),
    ("url_file", "url.file"),
    ("token_file", "token.file"),
    ("key", "key_file"),
    ("sources", "source"),
    ("checks", "check"),
    ("webhooks", "webhook"),
    ("env", "environment"),
    ("username", "user"),
    ("hostname", "host"),
    ("db", "database"),
    ("retention", "keep"),
    ("cmd", "command"),
    ("paths", "files"),
    ("folders", "files"),
    ("excludes", "exclude"),
];

/// The rest of the sentence about an unknown key: what to write instead, or what there is.
pub(super) fn advice(key: &str, known: &[&'static str]) -> String {
    let elsewhere = ELSEWHERE.iter().filter(|(name, _)| *name == key).map(|(_, place)| *place);
    let is_here = |place: &&str| known.contains(&place.split('.').next().unwrap_or_default());
    if let Some(place) = elsewhere.into_iter().find(is_here) {
        return format!("; write {place}");
    }
    let spelled = key.to_ascii_lowercase().replace('-', "_");
    let near = known.iter().map(|word| (distance(&spelled, word), *word));
    let best = near.min().filter(|(distance, word)| *distance <= 1 + word.len() / 5 && *distance < word.len());
    match best {
        Some((_, word)) => format!("; did you mean {word}?"),
        None if known.is_empty() => String::new(),
        None => {
            let mut known = known.to_vec();
            known.sort_unstable();
            format!("; known are {}", known.join(", "))
        }
    }
}

/// How many letters must be put in, taken out, exchanged or swapped with the next to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let exchange = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = exchange.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found() {
        for (key, expected) in [
            ("min_sise", "; did you mean min_size?"),
            ("min-size", "; did you mean min_size?"),
            ("Min_Size", "; did you mean min_size?"),
            ("mni_size", "; did you mean min_size?"),
            ("timeuot", "; did you mean timeout?"),
            ("max_age", "; write objectives.max_age"),
            ("x", "; known are min_size, objectives, timeout"),
            ("", "; known are min_size, objectives, timeout"),
        ] {
            assert_eq!(advice(key, &["timeout", "min_size", "objectives"]), expected, "{key}");
        }
        assert_eq!(advice("x", &[]), "");
    }
}
