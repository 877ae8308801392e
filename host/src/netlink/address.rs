//! Addresses of links.

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::AddressAddRequest;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};

use super::{Netlink, family_of, refused};
use crate::error::HostError;
use crate::journal::RecordedLink;

/// An address as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedAddress {
    pub(crate) address: IpNet,
    /// Whether it stays until somebody removes it; others lose their use, and go, after a time.
    pub(crate) permanent: bool,
}

impl Netlink {
    /// Lists the addresses of a link.
    pub(crate) async fn listed_addresses(&self, link: &RecordedLink) -> Result<Vec<ListedAddress>, HostError> {
        let listed = self.handle.address().get().set_link_index_filter(link.index).execute();
        let messages: Vec<AddressMessage> =
            listed.try_collect().await.map_err(|error| refused(format!("list addresses of {}", link.name), error))?;
        Ok(messages.iter().filter_map(listed_address).collect())
    }

    /// Adds an address to a link, or makes it permanent again.
    pub(crate) async fn put_back_address(&self, link: &RecordedLink, address: IpNet) -> Result<(), HostError> {
        let done = self.address_request(link, address).replace().execute().await;
        done.map_err(|error| refused(format!("add address {address} to {}", link.name), error))
    }

    /// Removes an address from a link, whatever the link's name is by now.
    pub(crate) async fn remove_recorded_address(&self, link: &RecordedLink, address: IpNet) -> Result<(), HostError> {
        let mut message = AddressMessage::default();
        message.header.index = link.index;
        message.header.prefix_len = address.prefix_len();
        message.header.family = family_of(address.addr());
        message.attributes = vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
        let removed = self.handle.address().del(message).execute().await;
        removed.map_err(|error| refused(format!("remove address {address} from {}", link.name), error))
    }

    pub(super) fn address_request(&self, link: &RecordedLink, address: IpNet) -> AddressAddRequest {
        let mut request = self.handle.address().add(link.index, address.addr(), address.prefix_len());
        let mut flags = AddressFlags::empty();
        if address.prefix_len() == address.max_prefix_len() {
            flags |= AddressFlags::Noprefixroute;
        }
        let message = request.message_mut();
        if address.addr().is_ipv6() {
            // Nobody on a tunnel could hold the same address: usable at once, without duplicate detection.
            message.header.flags |= AddressHeaderFlags::Nodad;
            flags |= AddressFlags::Nodad;
        }
        message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
        message.attributes.push(AddressAttribute::Flags(flags));
        request
    }
}

pub(super) fn listed_address(message: &AddressMessage) -> Option<ListedAddress> {
    let pick = |local: bool| {
        message.attributes.iter().find_map(|attribute| {
            let wanted = matches!(attribute, AddressAttribute::Local(_)) == local;
            let (AddressAttribute::Local(address) | AddressAttribute::Address(address)) = attribute else {
                return None;
            };
            wanted.then_some(*address)
        })
    };
    let address = IpNet::new(pick(true).or_else(|| pick(false))?, message.header.prefix_len).ok()?;
    Some(ListedAddress { address, permanent: message.header.flags.contains(AddressHeaderFlags::Permanent) })
}
