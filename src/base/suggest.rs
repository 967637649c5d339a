//! Guesses what was meant by a word that means nothing, for the end of a refusal.

/// `; did you mean "…"?` for the nearest of `known`, or nothing when none is near.
///
/// Near is an edit distance (insert, delete, replace, swap of neighbours: Damerau's, in its
/// "optimal string alignment" form) of at most a third of the word, and at least one.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let reach = (word.len() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase().chars().collect::<Vec<_>>()), candidate))
        .filter(|(far, candidate)| *far <= reach && *far < candidate.chars().count())
        .min()
        .map_or_else(String::new, |(_, candidate)| format!("; did you mean {candidate:?}?"))
}

fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(from != to)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_and_a_far_one_is_not() {
        let known = ["home", "etc", "photos"];
        assert_eq!(did_you_mean("hom", known), "; did you mean \"home\"?");
        assert_eq!(did_you_mean("ohme", known), "; did you mean \"home\"?");
        assert_eq!(did_you_mean("Photo", known), "; did you mean \"photos\"?");
        assert_eq!(did_you_mean("database", known), "");
        assert_eq!(did_you_mean("x", ["y"]), "");
        assert_eq!(did_you_mean("", known), "");
    }
}
