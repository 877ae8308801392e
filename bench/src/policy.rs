//! A policy to measure with: as many groups and rules as somebody wants.

use std::fmt::Write as _;

use adit_program::output;
use clap::Args;

/// Users that are put into groups: `load0`, `load1` and so on, as the clients of a load are called.
const USERS: u32 = 20_000;

/// How large the policy shall be.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Into how many groups the users of `load` are put, who are called load0, load1 and so on; with 0 every rule is
    /// about everybody.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=256))]
    groups: u32,
    /// How many rules it has; the last of them allows everybody everything.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    rules: u32,
}

/// Prints the policy.
pub(crate) fn run(options: &Options) {
    output::line(text(options.groups, options.rules).trim_end());
}

/// A policy whose rules but the last each allow some of the users one network and port.
fn text(groups: u32, rules: u32) -> String {
    let mut text = String::new();
    for group in 0..groups {
        let step = usize::try_from(groups).unwrap_or(usize::MAX);
        let members: Vec<String> = (group..USERS).step_by(step).map(|user| format!("\"load{user}\"")).collect();
        let _infallible = write!(text, "[groups.group{group}]\nmembers = [{}]\n\n", members.join(", "));
    }
    for rule in 1..rules {
        let group = if groups > 0 { format!("group{}", rule % groups) } else { "*".to_owned() };
        let network = format!("10.{}.{}.0/24", rule / 256, rule % 256);
        let _infallible = write!(
            text,
            "[[rules]]\ngroups = [\"{group}\"]\naction = \"allow\"\nto = [\"{network}\"]\nports = [\"tcp/{rule}\"]\n\n"
        );
    }
    text.push_str("[[rules]]\ngroups = [\"*\"]\naction = \"allow\"\nto = [\"*\"]\n");
    text
}

/// How many groups and rules a policy has.
///
/// # Errors
/// Why it is no TOML.
pub(crate) fn size(text: &str) -> Result<(usize, usize), toml::de::Error> {
    let table: toml::Table = text.parse()?;
    let groups = table.get("groups").and_then(toml::Value::as_table).map_or(0, toml::Table::len);
    let rules = table.get("rules").and_then(toml::Value::as_array).map_or(0, Vec::len);
    Ok((groups, rules))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use adit_server::policy::PolicyFile;

    use super::*;

    #[test]
    fn policies_of_every_size_are_good() {
        for (groups, rules) in [(0, 1), (0, 1_000), (1, 2), (10, 100), (256, 4_096)] {
            let text = text(groups, rules);
            assert_eq!(size(&text).unwrap(), (groups as usize, rules as usize));
            let parsed = PolicyFile::parse(Path::new("policy.toml"), &text);
            assert!(parsed.is_ok(), "{groups} groups, {rules} rules");
        }
    }

    #[test]
    fn each_user_is_in_one_group() {
        let text = text(3, 5);
        assert_eq!(text.matches("\"load7\"").count(), 1);
        assert!(text.contains("[groups.group1]\nmembers = [\"load1\", \"load4\", "), "{text:.200}");
    }
}
