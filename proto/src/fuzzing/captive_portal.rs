//! Body of the target for captive portals.

use crate::captive_portal::{PageAddress, UserStanding, user_standing};

/// Wherever a network leads to, by its API's answer or by an address alone, may be shown and handed to a shell.
pub fn captive_portal(data: &[u8]) {
    if let Some(UserStanding::Captive(Some(page))) = user_standing(data) {
        is_fit_to_be_shown(&page);
    }
    let page = str::from_utf8(data).ok().and_then(PageAddress::parse);
    page.iter().for_each(is_fit_to_be_shown);
}

fn is_fit_to_be_shown(page: &PageAddress) {
    assert!(page.as_str().bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\''));
    assert!(page.path().starts_with('/') && !page.host().is_empty());
}
