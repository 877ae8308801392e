//! How a run ends that has targets.

use adit_program::exit::{Exit, Failure};

/// What makes a run of `command` a failure: targets by their names, each with whether it was met, or `None` where that
/// is not decided.
///
/// # Errors
/// A target was missed: exit code 8. One is not decided: 9.
pub(crate) fn of(
    command: &str,
    targets: impl IntoIterator<Item = (String, Option<bool>), IntoIter: Clone>,
) -> Result<(), Failure> {
    let targets = targets.into_iter();
    let names = |met: Option<bool>| {
        let names = targets.clone().filter(|(_, this)| *this == met).map(|(name, _)| name);
        names.collect::<Vec<_>>().join(", ")
    };
    let (missed, open) = (names(Some(false)), names(None));
    if !missed.is_empty() {
        return Err(Failure::new(Exit::Regression, command, format!("missed: {missed}"), "look at what changed"));
    }
    if !open.is_empty() {
        let next = "see the notes; give it more --rounds or --seconds, or a quieter machine";
        return Err(Failure::new(Exit::Inconclusive, command, format!("not decided: {open}"), next));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worst_target_decides_and_is_named() {
        let ended = |targets: &[(&str, Option<bool>)]| {
            let targets: Vec<_> = targets.iter().map(|(name, met)| ((*name).to_owned(), *met)).collect();
            of("networks", targets).err().map(|failure| (failure.exit, failure.reason))
        };
        assert_eq!(ended(&[("A", Some(true))]), None);
        assert_eq!(ended(&[("A", None), ("B", Some(true))]), Some((Exit::Inconclusive, "not decided: A".to_owned())));
        let all = [("A", None), ("B", Some(false)), ("C", Some(false))];
        assert_eq!(ended(&all), Some((Exit::Regression, "missed: B, C".to_owned())));
    }
}
