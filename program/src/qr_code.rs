//! QR codes for a terminal.

use std::os::fd::AsFd;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use crate::exit::{Exit, Failure};

/// What can be shown where the output goes.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Width of the terminal; `None` where the output is none.
    columns: Option<usize>,
    /// Whether characters beyond ASCII come out as such.
    has_unicode: bool,
}

impl Screen {
    /// That of standard output or standard error.
    #[must_use]
    pub fn of(output: impl AsFd) -> Self {
        let size = rustix::termios::tcgetwinsize(output).ok();
        let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        Self { columns, has_unicode: has_unicode(|name| std::env::var(name).ok()) }
    }
}

/// Whether the locale is one of UTF-8 (POSIX, "Environment Variables": the first of these that is set and not empty).
fn has_unicode(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|locale| !locale.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// A QR code, light on dark as terminals mostly are, with its quiet zone: of half blocks, or of plain characters where
/// the locale has no others. A code that the terminal would wrap cannot be read; then it is said what is missing.
///
/// # Errors
/// If the text does not fit any QR code.
pub fn qr_code(text: &str, screen: &Screen) -> Result<String, Failure> {
    let code = QrCode::new(text)
        .map_err(|error| Failure::new(Exit::Other, "QR code", error.to_string(), "use the text instead"))?;
    let picture = if screen.has_unicode {
        code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build()
    } else {
        code.render::<char>().dark_color(' ').light_color('#').module_dimensions(2, 1).build()
    };
    let width = picture.lines().map(|line| line.chars().count()).max().unwrap_or_default();
    Ok(match screen.columns {
        Some(columns) if columns < width => {
            format!("(The QR code needs {width} columns, and this terminal has {columns}: widen it, or use the link.)")
        }
        Some(_) | None => picture,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &str = "adit://join/192.0.2.1:443#AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn shown(text: &str, columns: Option<usize>, has_unicode: bool) -> String {
        qr_code(text, &Screen { columns, has_unicode }).unwrap()
    }

    #[test]
    fn link_with_four_of_the_longest_names_fits() {
        let place = format!("{}:65535", "a".repeat(253));
        let link = format!("adit://join/{}#{}", [place.as_str(); 4].join(","), "A".repeat(64));
        assert!(shown(&link, None, true).lines().count() > 20);
    }

    #[test]
    fn code_is_shown_only_where_it_fits() {
        assert!(shown(LINK, Some(80), true).lines().count() > 20);
        let narrow = shown(LINK, Some(40), true);
        assert!(narrow.lines().count() == 1 && narrow.contains("this terminal has 40"), "{narrow}");
    }

    #[test]
    fn code_is_of_plain_characters_where_the_locale_has_no_others() {
        let plain = shown(LINK, None, false);
        assert!(plain.is_ascii() && plain.lines().count() > 40, "{plain}");
        assert!(!shown(LINK, None, true).is_ascii());
    }

    #[test]
    fn locale_is_that_of_the_first_variable_that_is_set() {
        let locale = |set: &[(&str, &str)]| {
            has_unicode(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert!(locale(&[("LANG", "de_DE.UTF-8")]) && locale(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!locale(&[]) && !locale(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]) && !locale(&[("LANG", "POSIX")]));
    }
}
