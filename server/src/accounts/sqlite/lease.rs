//! Addresses that stay with their devices.

use adit_proto::address_pool::Lease;
use rusqlite::{OptionalExtension, Row, params};

use super::{Store, StoreError};
use crate::accounts::StoredLease;

impl Store {
    /// Whether a device has these addresses. Waits for no disk.
    pub(super) fn has_lease(&self, device: &str, lease: Lease) -> Result<bool, StoreError> {
        Ok(self.lease(device)? == Some(lease))
    }

    /// Writes the addresses of a device, unless they are there, and takes them from whoever else had them.
    pub(super) fn write_lease(&self, device: &str, lease: Lease) -> Result<(), StoreError> {
        if self.has_lease(device, lease)? {
            return Ok(());
        }
        let v4 = lease.v4.map(|address| address.to_string());
        let v6 = lease.v6.map(|address| address.to_string());
        self.write(|transaction| {
            let forget = "DELETE FROM leases WHERE device <> ?1 AND (v4 = ?2 OR v6 = ?3)";
            transaction.execute(forget, params![device, v4, v6])?;
            transaction.execute(
                "INSERT INTO leases (device, v4, v6) VALUES (?1, ?2, ?3)
                 ON CONFLICT (device) DO UPDATE SET v4 = ?2, v6 = ?3",
                params![device, v4, v6],
            )?;
            Ok(())
        })
    }

    fn lease(&self, device: &str) -> Result<Option<Lease>, StoreError> {
        let sql = "SELECT device, v4, v6 FROM leases WHERE device = ?1";
        Ok(self.read().query_row(sql, [device], lease_of).optional()?.map(|stored| stored.lease))
    }

    /// All remembered addresses.
    ///
    /// # Errors
    /// The store failed.
    pub fn leases(&self) -> Result<Vec<StoredLease>, StoreError> {
        let connection = self.read();
        let mut query = connection.prepare("SELECT device, v4, v6 FROM leases ORDER BY device")?;
        let leases = query.query_map([], lease_of)?.collect::<Result<_, _>>()?;
        Ok(leases)
    }
}

/// Reads a lease; an address that does not parse counts as none.
fn lease_of(row: &Row<'_>) -> rusqlite::Result<StoredLease> {
    let v4: Option<String> = row.get(1)?;
    let v6: Option<String> = row.get(2)?;
    let lease = Lease { v4: v4.and_then(|text| text.parse().ok()), v6: v6.and_then(|text| text.parse().ok()) };
    Ok(StoredLease { device: row.get(0)?, lease })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Scratch, at, scratch};
    use super::*;
    use crate::accounts::UserName;

    fn lease(last: u8) -> Lease {
        Lease { v4: Some([10, 77, 0, last].into()), v6: None }
    }

    fn two_devices(store: &Store) -> (String, String) {
        let user = UserName::parse("alice").unwrap();
        (store.token(&user, at(0)).unwrap().0.id, store.token(&user, at(0)).unwrap().0.id)
    }

    #[test]
    fn device_finds_its_addresses_again_until_it_is_revoked() {
        let Scratch { store, directory: _directory } = scratch();
        let (a, _) = two_devices(&store);
        let wanted = Lease { v6: Some("fd00::2".parse().unwrap()), ..lease(2) };
        store.write_lease(&a, wanted).unwrap();
        assert_eq!(store.lease(&a).unwrap(), Some(wanted));
        store.revoke(&a, at(1)).unwrap();
        assert_eq!(store.lease(&a).unwrap(), None);
    }

    #[test]
    fn address_is_remembered_for_one_device_only() {
        let Scratch { store, directory: _directory } = scratch();
        let (a, b) = two_devices(&store);
        store.write_lease(&a, lease(2)).unwrap();
        store.write_lease(&b, lease(2)).unwrap();
        assert_eq!(store.leases().unwrap(), [StoredLease { device: b, lease: lease(2) }]);
    }

    #[test]
    fn addresses_that_are_remembered_already_are_not_written_again() {
        let Scratch { store, directory: _directory } = scratch();
        let (a, _) = two_devices(&store);
        store.write_lease(&a, lease(2)).unwrap();
        let changes = store.writer().total_changes();
        store.write_lease(&a, lease(2)).unwrap();
        assert_eq!(store.writer().total_changes(), changes);
        store.write_lease(&a, lease(3)).unwrap();
        assert!(store.writer().total_changes() > changes);
    }

    #[test]
    fn unknown_device_gets_no_lease() {
        let Scratch { store, directory: _directory } = scratch();
        assert!(store.write_lease("dev-none", lease(2)).is_err());
    }
}
