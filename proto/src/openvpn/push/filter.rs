//! The option `pull-filter` of profiles: which of the pushed options count.

/// What becomes of an option that begins with a filter's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It counts, whatever later filters say.
    Accept,
    /// It is passed over.
    Ignore,
    /// There is no tunnel.
    Reject,
}

/// A filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What becomes of options.
    pub action: Action,
    /// What they begin with.
    pub prefix: String,
}

/// What the first filter says that is about `option`; without one it is accepted.
pub fn decide(filters: &[Filter], option: &str) -> Action {
    let first = filters.iter().find(|filter| option.starts_with(&filter.prefix));
    first.map_or(Action::Accept, |filter| filter.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_filter_that_fits_decides() {
        let filter = |action, prefix: &str| Filter { action, prefix: prefix.to_owned() };
        let filters = [
            filter(Action::Accept, "route 192.168."),
            filter(Action::Ignore, "route "),
            filter(Action::Reject, "compress"),
        ];
        assert_eq!(decide(&filters, "route 192.168.1.0 255.255.255.0"), Action::Accept);
        assert_eq!(decide(&filters, "route 10.0.0.0 255.0.0.0"), Action::Ignore);
        assert_eq!(decide(&filters, "route-gateway 10.0.0.1"), Action::Accept);
        assert_eq!(decide(&filters, "compress lz4"), Action::Reject);
        assert_eq!(decide(&[], "compress lz4"), Action::Accept);
    }
}
