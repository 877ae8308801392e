use bytes::Bytes;
use data_encoding::HEXLOWER;

use super::*;
use crate::esp::spi::Spi;

fn init(epoch: u32, suite: Suite, spi: u32, group: Option<Group>, share: u8) -> SaInit {
    let share = group.map_or_else(Bytes::new, |_| Bytes::from(vec![share; 32]));
    SaInit { epoch, suite, flags: 3, spi: Spi::from_wire(spi).unwrap(), group, share }
}

fn pair(epoch: u32, suite: Suite, group: Option<Group>) -> (SaInit, SaInit) {
    let number = 2 * epoch;
    (init(epoch, suite, 0x8100_0001 + number, group, 0x11), init(epoch, suite, 0x8200_0002 + number, group, 0x22))
}

fn exported() -> [u8; SECRET_LEN] {
    std::array::from_fn(|place| u8::try_from(place).unwrap())
}

fn chain() -> KeyChain {
    KeyChain::new(&mut exported())
}

fn hex(keys: &EpochKeys) -> [String; 4] {
    let (ours, theirs) = (&keys.client_to_server, &keys.server_to_client);
    [ours.key(), &ours.salt(), theirs.key(), &theirs.salt()].map(|bytes| HEXLOWER.encode(bytes))
}

/// The expected values come from another implementation of HKDF, over the formulas of the module's documentation.
#[test]
fn schedule_agrees_with_an_independent_computation() {
    let mut chain = chain();
    let (client, server) = pair(0, Suite::Aes256Gcm, None);
    assert_eq!(
        hex(&chain.advance(&client, &server, None).unwrap()),
        [
            "73610e8c4a20ef388fdbaa4c16cb201cd61fa4ecccd85c8a865e888bad03217b",
            "3e109b1e",
            "034d19aca7a7b96913e90a999ff51ce0c8e64e846023c8055d852a910652ba22",
            "5467e919",
        ]
    );
    let (client, server) = pair(1, Suite::Aes256Gcm, Some(Group::X25519));
    assert_eq!(
        hex(&chain.advance(&client, &server, Some(&[0x33; 32])).unwrap()),
        [
            "79b7e679e58703e23108042b8d334173bca2be8dd09a837c4dab60c1a04e373d",
            "1b1ed9e3",
            "434d123c9f3c156a1e4fcbdc14d141395e3cd9a1efe008cffdd58798b142e5ee",
            "0c334503",
        ]
    );
    let (client, server) = pair(2, Suite::Aes128Gcm, None);
    assert_eq!(
        hex(&chain.advance(&client, &server, None).unwrap()),
        ["5bef34a7fb888d74b6602ea661b0cf64", "f0c42956", "cb77d257fe48a993f260e6cccb0818ed", "21062fc7",]
    );
    assert_eq!(chain.next_epoch, Some(3));
}

fn first_keys(client: &SaInit, server: &SaInit) -> [String; 4] {
    hex(&chain().advance(client, server, None).unwrap())
}

#[test]
fn directions_never_share_a_key() {
    for suite in Suite::ALL {
        let (client, server) = pair(0, suite, None);
        let [key_up, salt_up, key_down, salt_down] = first_keys(&client, &server);
        assert!(key_up != key_down && salt_up != salt_down);
        assert_eq!(key_up.len(), suite.key_len() * 2);
    }
}

#[test]
fn both_indices_and_suite_and_flags_are_bound_in() {
    let (client, server) = pair(0, Suite::Aes256Gcm, None);
    let baseline = first_keys(&client, &server);
    let other_spi = |init: &SaInit| SaInit { spi: Spi::from_wire(0x8300_0000).unwrap(), ..init.clone() };
    let with_suite = |init: &SaInit| SaInit { suite: Suite::ChaCha20Poly1305, ..init.clone() };
    let others = [
        first_keys(&other_spi(&client), &server),
        first_keys(&client, &other_spi(&server)),
        first_keys(&with_suite(&client), &with_suite(&server)),
        first_keys(&SaInit { flags: 1, ..client.clone() }, &server),
        first_keys(&server, &client),
    ];
    for other in others {
        assert!(other.iter().zip(&baseline).all(|(other, baseline)| other != baseline));
    }
}

#[test]
fn every_epoch_and_every_exchange_gives_other_keys() {
    let run = |secrets: [u8; 3]| {
        let mut chain = chain();
        let (client, server) = pair(0, Suite::Aes256Gcm, None);
        let mut all = hex(&chain.advance(&client, &server, None).unwrap()).to_vec();
        for (epoch, secret) in (1..).zip(secrets) {
            let (client, server) = pair(epoch, Suite::Aes256Gcm, Some(Group::X25519));
            all.extend(hex(&chain.advance(&client, &server, Some(&[secret; 32])).unwrap()));
        }
        all
    };
    let (one, two) = (run([1, 2, 3]), run([1, 9, 3]));
    assert_eq!(one, run([1, 2, 3]), "both ends get the same");
    assert_eq!(one[..8], two[..8]);
    assert!(one[8..].iter().zip(&two[8..]).all(|(one, two)| one != two), "a fresh secret changes all that follows");
    let distinct: std::collections::HashSet<_> = one.iter().collect();
    assert_eq!(distinct.len(), one.len());
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_the_chain() {
    let (client, server) = pair(0, Suite::Aes256Gcm, None);
    let (later, group) = (SaInit { epoch: 1, ..server.clone() }, Some(Group::X25519));
    let suite = SaInit { suite: Suite::Aes128Gcm, ..server.clone() };
    let mut chain = chain();
    let mut refuse = |client: &SaInit, server: &SaInit, shared: Option<&[u8]>, error| {
        assert_eq!(chain.advance(client, server, shared).err(), Some(error));
    };
    refuse(&client, &later, None, KeyError::Epoch);
    refuse(&later, &later, None, KeyError::Epoch);
    refuse(&client, &suite, None, KeyError::Suite);
    refuse(&client, &SaInit { group, ..server.clone() }, None, KeyError::Group);
    refuse(&SaInit { group, ..client.clone() }, &SaInit { group, ..server.clone() }, Some(&[1; 32]), KeyError::Group);
    refuse(&client, &server, Some(&[1; 32]), KeyError::SharedSecret);
    assert_eq!(hex(&chain.advance(&client, &server, None).unwrap()), first_keys(&client, &server));
    let (client, server) = pair(1, Suite::Aes256Gcm, group);
    assert_eq!(chain.advance(&client, &server, None).err(), Some(KeyError::SharedSecret));
    assert_eq!(chain.advance(&client, &server, Some(&[0; 32])).err(), Some(KeyError::SharedSecret));
    assert!(chain.advance(&client, &server, Some(&[1; 32])).is_ok());
}

#[test]
fn exporter_output_is_erased_at_its_source() {
    let mut secret = exported();
    let _chain = KeyChain::new(&mut secret);
    assert_eq!(secret, [0; SECRET_LEN]);
}

#[test]
fn last_epoch_is_the_last() {
    let (client, server) = pair(0, Suite::Aes256Gcm, None);
    let at = |init: SaInit| SaInit { epoch: u32::MAX, ..init };
    let mut chain = KeyChain { secret: exported(), next_epoch: Some(u32::MAX) };
    assert!(chain.advance(&at(client.clone()), &at(server.clone()), None).is_ok());
    assert_eq!(chain.advance(&client, &server, None).err(), Some(KeyError::Exhausted));
}
