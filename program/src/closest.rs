//! The known name that a misspelt one most likely means.

/// Names less alike than this (Jaro-Winkler, 0 to 1) are not suggested: it would be a guess.
const ALIKE: f64 = 0.8;

/// How alike a name and a known one are, up to 1 for the same; `None` if not alike enough for one to be meant by the
/// other.
///
/// Jaro-Winkler gives weight to a common beginning, where people rarely err, and forgives a missing or swapped letter
/// in short names as well as in long ones.
#[must_use]
pub fn likeness(name: &str, known: &str) -> Option<f64> {
    Some(strsim::jaro_winkler(name, known)).filter(|likeness| *likeness >= ALIKE)
}

/// The known name most like `name`, if any is like it enough to be meant.
#[must_use]
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = known.into_iter().filter_map(|known| Some((likeness(name, known)?, known)));
    alike.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, known)| known)
}

/// The next step for who used an unknown name: the name most likely meant, or all that are known.
#[must_use]
pub fn next_step<'a>(name: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match closest(name, known.clone()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("known are {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_name_is_recognised_and_a_strange_one_is_not() {
        let known = ["certificate", "authority", "token"];
        for (misspelt, meant) in
            [("autority", "authority"), ("tokne", "token"), ("certifcate", "certificate"), ("tok", "token")]
        {
            assert_eq!(closest(misspelt, known), Some(meant), "{misspelt}");
        }
        assert_eq!(closest("zzz", known), None);
        assert_eq!(closest("x", []), None);
    }

    #[test]
    fn of_several_alike_the_most_alike_is_meant() {
        assert_eq!(closest("suites", ["suite", "suites_", "suites"]), Some("suites"));
    }

    #[test]
    fn next_step_lists_the_known_names_when_none_is_alike() {
        assert_eq!(next_step("tokne", ["host", "token"]), "did you mean `token`?");
        assert_eq!(next_step("x", ["host", "token"]), "known are host, token");
    }
}
