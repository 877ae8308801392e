//! Links by their index: a link keeps it when it gets another name, and no later link of its name gets it.

use futures::StreamExt;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use super::{LinkSettings, Netlink, refused};
use crate::error::HostError;
use crate::journal::RecordedLink;

/// A link as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedLink {
    pub(crate) name: String,
    pub(crate) settings: LinkSettings,
}

impl Netlink {
    /// Finds a link by its index; `None` if it was deleted.
    pub(crate) async fn link_at(&self, index: u32) -> Result<Option<ListedLink>, HostError> {
        let link = self.message_at(index).await?;
        Ok(link.and_then(|link| name_of(&link).map(|name| ListedLink { name, settings: settings_of(&link) })))
    }

    async fn message_at(&self, index: u32) -> Result<Option<LinkMessage>, HostError> {
        let mut links = std::pin::pin!(self.handle.link().get().match_index(index).execute());
        match links.next().await {
            Some(Ok(link)) => Ok(Some(link)),
            Some(Err(error)) => {
                let error = refused(format!("look up link {index}"), error);
                if error.errno() == Some(libc::ENODEV) { Ok(None) } else { Err(error) }
            }
            None => Ok(None),
        }
    }

    /// The name of a link, and whether it is the device of a tunnel in user space or of WireGuard; `None` if it was
    /// deleted.
    pub(crate) async fn name_and_whether_tunnel(&self, index: u32) -> Result<Option<(String, bool)>, HostError> {
        let link = self.message_at(index).await?;
        Ok(link.and_then(|link| name_of(&link).map(|name| (name, is_tunnel(&link)))))
    }

    /// Changes the settings of a link, whatever its name is by now.
    pub(crate) async fn set_recorded_link(&self, link: &RecordedLink, settings: LinkSettings) -> Result<(), HostError> {
        let mut change = LinkUnspec::new_with_index(link.index);
        if let Some(mtu) = settings.mtu {
            change = change.mtu(mtu);
        }
        if let Some(segments) = settings.gso_max_segs {
            change = change.append_extra_attribute(LinkAttribute::GsoMaxSegs(segments));
        }
        change = match settings.up {
            Some(true) => change.up(),
            Some(false) => change.down(),
            None => change,
        };
        let changed = self.handle.link().change(change.build()).execute().await;
        changed.map_err(|error| refused(format!("set link {} to {settings:?}", link.name), error))
    }

    /// Puts a link into a group, by which firewalls tell it from others.
    pub(crate) async fn set_group(&self, name: &str, group: u32) -> Result<(), HostError> {
        let change = LinkUnspec::new_with_index(self.link_index(name).await?);
        let change = change.append_extra_attribute(LinkAttribute::Group(group)).build();
        let changed = self.handle.link().change(change).execute().await;
        changed.map_err(|error| refused(format!("put link {name} into group {group}"), error))
    }

    /// Gives a link its recorded name back. Kernels before 6.2 refuse that while the link is up (`EBUSY`).
    pub(crate) async fn rename_recorded_link(&self, link: &RecordedLink) -> Result<(), HostError> {
        let change = LinkUnspec::new_with_index(link.index).name(&link.name);
        let renamed = self.handle.link().change(change.build()).execute().await;
        renamed.map_err(|error| refused(format!("give link {} its name back", link.name), error))
    }
}

pub(super) fn settings_of(link: &LinkMessage) -> LinkSettings {
    let mut settings = LinkSettings { up: Some(link.header.flags.contains(LinkFlags::Up)), ..LinkSettings::default() };
    for attribute in &link.attributes {
        if let LinkAttribute::Mtu(mtu) = attribute {
            settings.mtu = Some(*mtu);
        } else if let LinkAttribute::GsoMaxSegs(segments) = attribute {
            settings.gso_max_segs = Some(*segments);
        }
    }
    settings
}

fn name_of(link: &LinkMessage) -> Option<String> {
    let name = |attribute: &LinkAttribute| {
        if let LinkAttribute::IfName(name) = attribute { Some(name.clone()) } else { None }
    };
    link.attributes.iter().find_map(name)
}

fn is_tunnel(link: &LinkMessage) -> bool {
    let kind = |info: &LinkInfo| matches!(info, LinkInfo::Kind(InfoKind::Tun | InfoKind::Wireguard));
    link.attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.iter().any(kind)))
}
