//! Addresses that stay with their devices.

use rusqlite::{OptionalExtension, Row, params};

use super::{Store, StoreError};
use crate::accounts::StoredLease;

impl Store {
    /// Remembers the addresses of a device, durably. Whoever else had one of them without it being static forgets it.
    ///
    /// # Errors
    /// The store failed, or a static lease of another device holds one of the addresses.
    pub fn save_lease(&self, lease: &StoredLease) -> Result<(), StoreError> {
        let v4 = lease.v4.map(|address| address.to_string());
        let v6 = lease.v6.map(|address| address.to_string());
        self.write(|transaction| {
            let others = "device <> ?1 AND (v4 = ?2 OR v6 = ?3)";
            let sql = format!("SELECT EXISTS (SELECT 1 FROM leases WHERE is_static = 1 AND {others})");
            if transaction.query_row(&sql, params![lease.device, v4, v6], |row| row.get(0))? {
                return Err(StoreError::StaticLease);
            }
            transaction.execute(&format!("DELETE FROM leases WHERE {others}"), params![lease.device, v4, v6])?;
            transaction.execute(
                "INSERT INTO leases (device, v4, v6, is_static) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (device) DO UPDATE SET v4 = ?2, v6 = ?3, is_static = ?4",
                params![lease.device, v4, v6, lease.is_static],
            )?;
            Ok(())
        })
    }

    /// The remembered addresses of one device.
    ///
    /// # Errors
    /// The store failed.
    pub fn lease(&self, device: &str) -> Result<Option<StoredLease>, StoreError> {
        let sql = "SELECT device, v4, v6, is_static FROM leases WHERE device = ?1";
        Ok(self.lock().query_row(sql, [device], lease_of).optional()?)
    }

    /// All remembered addresses, static ones first.
    ///
    /// # Errors
    /// The store failed.
    pub fn leases(&self) -> Result<Vec<StoredLease>, StoreError> {
        let connection = self.lock();
        let mut query =
            connection.prepare("SELECT device, v4, v6, is_static FROM leases ORDER BY is_static DESC, device")?;
        let leases = query.query_map([], lease_of)?.collect::<Result<_, _>>()?;
        Ok(leases)
    }
}

/// Reads a lease; an address that does not parse counts as none.
fn lease_of(row: &Row<'_>) -> rusqlite::Result<StoredLease> {
    let v4: Option<String> = row.get(1)?;
    let v6: Option<String> = row.get(2)?;
    Ok(StoredLease {
        device: row.get(0)?,
        v4: v4.and_then(|text| text.parse().ok()),
        v6: v6.and_then(|text| text.parse().ok()),
        is_static: row.get(3)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Scratch, at, scratch};
    use super::*;
    use crate::accounts::UserName;

    fn lease(device: &str, last: u8, is_static: bool) -> StoredLease {
        let v4 = Some([10, 77, 0, last].into());
        StoredLease { device: device.to_owned(), v4, v6: None, is_static }
    }

    fn two_devices(store: &Store) -> (String, String) {
        let user = UserName::parse("alice").unwrap();
        (store.token(&user, at(0)).unwrap().0.id, store.token(&user, at(0)).unwrap().0.id)
    }

    #[test]
    fn device_finds_its_addresses_again_until_it_is_revoked() {
        let Scratch { store, directory: _directory } = scratch();
        let (a, _) = two_devices(&store);
        let mut wanted = lease(&a, 2, false);
        wanted.v6 = Some("fd00::2".parse().unwrap());
        store.save_lease(&wanted).unwrap();
        assert_eq!(store.lease(&a).unwrap(), Some(wanted));
        store.revoke(&a, at(1)).unwrap();
        assert_eq!(store.lease(&a).unwrap(), None);
    }

    #[test]
    fn address_is_remembered_for_one_device_only() {
        let Scratch { store, directory: _directory } = scratch();
        let (a, b) = two_devices(&store);
        store.save_lease(&lease(&a, 2, false)).unwrap();
        store.save_lease(&lease(&b, 2, false)).unwrap();
        assert_eq!(store.leases().unwrap(), [lease(&b, 2, false)]);
    }

    #[test]
    fn static_address_is_not_taken_away() {
        let Scratch { store, directory: _directory } = scratch();
        let (a, b) = two_devices(&store);
        store.save_lease(&lease(&a, 2, true)).unwrap();
        assert!(matches!(store.save_lease(&lease(&b, 2, false)), Err(StoreError::StaticLease)));
        assert_eq!(store.lease(&b).unwrap(), None);
    }

    #[test]
    fn unknown_device_gets_no_lease() {
        let Scratch { store, directory: _directory } = scratch();
        assert!(store.save_lease(&lease("dev-none", 2, false)).is_err());
    }
}
