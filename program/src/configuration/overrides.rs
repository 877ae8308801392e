//! What is said on top of a file, by the environment and by flags.

use super::Keys;

/// Values on top of those of a file: flags win over the environment, which wins over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `ADIT_…` variables that name a key, as (key, text).
    pub environment: Vec<(&'static str, String)>,
    /// `--set KEY=VALUE` flags, as (key, text).
    pub flags: Vec<(String, String)>,
}

impl Overrides {
    /// The last text given for a key, which is the one that holds.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&str> {
        let flag = self.flags.iter().rev().find(|(key, _)| key == name).map(|(_, text)| text.as_str());
        flag.or_else(|| self.environment.iter().find(|(key, _)| *key == name).map(|(_, text)| text.as_str()))
    }
}

impl<D> Keys<D> {
    /// The variables of the present environment that override a key, as (key, text).
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        self.rows().filter_map(|key| Some((key.name, std::env::var(key.variable()).ok()?))).collect()
    }
}
