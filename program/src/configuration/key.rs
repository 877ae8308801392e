//! The rows: what is known about each key.

use super::{Complaint, Given};
use crate::closest::{closest, likeness};

/// One key of a configuration that is read into a `D`.
pub struct Key<D: 'static> {
    /// Its name; a dot separates the table from the key.
    pub name: &'static str,
    /// Which values it takes.
    pub kind: Kind,
    /// What holds where nobody gives it.
    pub absent: Absent,
    /// A TOML literal that shows the form of the value. It means something else than the default.
    pub example: &'static str,
    /// What it means, one sentence a line; `{least}` and `{most}` stand for the bounds of its kind.
    pub meaning: &'static str,
    /// When a change of it takes effect.
    pub applies: Applies,
    /// Reads its value.
    pub read: fn(&Given<'_>, &mut D) -> Result<(), Complaint>,
}

/// Which values a key takes. Bounds are part of the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A text.
    Text,
    /// A name of so many characters.
    Name {
        /// The fewest characters.
        least: u64,
        /// The most characters.
        most: u64,
    },
    /// A number.
    Integer {
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// A length of time with its unit. The bounds are lengths of time, too, such as `"24h"`.
    Duration {
        /// The shortest.
        least: &'static str,
        /// The longest.
        most: &'static str,
    },
    /// An IP network whose prefix has so many bits.
    Network {
        /// The shortest prefix, which is the largest network.
        least: u8,
        /// The longest prefix.
        most: u8,
    },
    /// A list of texts.
    List,
}

impl Kind {
    /// The bounds as people read them, if it has any.
    #[must_use]
    pub fn bounds(&self) -> Option<(String, String)> {
        match self {
            Self::Boolean | Self::Text | Self::List => None,
            Self::Name { least, most } | Self::Integer { least, most } => Some((least.to_string(), most.to_string())),
            Self::Duration { least, most } => Some(((*least).to_owned(), (*most).to_owned())),
            Self::Network { least, most } => Some((least.to_string(), most.to_string())),
        }
    }
}

/// What holds where nobody gives a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// This TOML literal, which is read as if it had been given.
    Default(&'static str),
    /// Nothing: the configuration does without it.
    Optional,
    /// The configuration is refused.
    Refused,
}

/// When a change of a key takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// While the program runs, and on what it does already.
    Live,
    /// While the program runs, on what begins then.
    NewSessions,
    /// When the program starts again.
    Restart,
}

impl Applies {
    /// The word for it in the documentation.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::NewSessions => "new sessions",
            Self::Restart => "restart",
        }
    }
}

impl<D> Key<D> {
    /// The table the key is in; empty for the top level.
    #[must_use]
    pub fn table(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(table, _)| table)
    }

    /// The name inside its table.
    #[must_use]
    pub fn leaf(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, leaf)| leaf)
    }

    /// The environment variable that overrides it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("ADIT_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// What it means, with its bounds in words.
    #[must_use]
    pub fn meaning(&self) -> String {
        match self.kind.bounds() {
            Some((least, most)) => self.meaning.replace("{least}", &least).replace("{most}", &most),
            None => self.meaning.to_owned(),
        }
    }

    /// Its default as a TOML literal, if it has one.
    #[must_use]
    pub fn default(&self) -> Option<&'static str> {
        match self.absent {
            Absent::Default(literal) => Some(literal),
            Absent::Optional | Absent::Refused => None,
        }
    }
}

/// All keys of a configuration that is read into a `D`: top level first, then table by table.
pub struct Keys<D: 'static> {
    /// The rows, those of each table together.
    pub tables: &'static [&'static [Key<D>]],
    /// Where people find all keys: the end of a sentence that begins with "remove it; ".
    pub listed: &'static str,
}

impl<D> Keys<D> {
    /// All rows, in their order.
    pub fn rows(&self) -> impl Iterator<Item = &'static Key<D>> + use<D> {
        self.tables.iter().copied().flatten()
    }

    /// The key of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'static Key<D>> {
        self.rows().find(|key| key.name == name)
    }

    /// Whether a name is a table of keys.
    #[must_use]
    pub fn is_table(&self, name: &str) -> bool {
        !name.is_empty() && self.rows().any(|key| key.table() == name)
    }

    /// The known key or table most like an unknown name, if any is like it enough to be meant.
    #[must_use]
    pub fn closest(&self, name: &str) -> Option<&'static str> {
        let leaf = name.rsplit('.').next().unwrap_or(name);
        self.rows()
            .flat_map(|key| {
                let whole = (likeness(name, key.name), key.name);
                let inner = (likeness(leaf, key.leaf()), key.name);
                let table = (likeness(name, key.table()), key.table());
                [whole, inner, table]
            })
            .filter(|(_, candidate)| !candidate.is_empty())
            .filter_map(|(likeness, candidate)| Some((likeness?, candidate)))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, candidate)| candidate)
    }

    /// The known name in the same table that is most like an unknown one, if any is like it enough to be meant.
    #[must_use]
    pub fn closest_in_table(&self, name: &str) -> Option<&'static str> {
        let (table, leaf) = name.split_once('.').unwrap_or(("", name));
        let keys = self.rows().filter(|key| key.table() == table).map(Key::leaf);
        let tables = self.rows().map(Key::table).filter(|known| table.is_empty() && !known.is_empty());
        closest(leaf, keys.chain(tables))
    }
}
